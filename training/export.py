"""Write the model folder: the evaluated weights as ONNX, the model card, the reference, pictures, checksums.

The ONNX graph holds everything between the preprocessed picture and the answer: normalisation, network, temperature,
novelty. Torch and ONNX Runtime must agree on real test pictures, or there is no model folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from training import mistakes, params
from training.command import run_command
from training.dataset import MANIFEST_FILE, DatasetError, Manifest, Picture, decoded
from training.evaluate import CALIBRATION_FILE, METRICS_FILE, PREDICTIONS_FILE, Calibration, EvaluationError, Trained
from training.forward import BATCH, onnx_bytes
from training.inference import CARD_FILE, MODEL_FILE, MODEL_FOLDER, Classifier, ModelFolder, write_sums
from training.lineage import LineageError, collect
from training.novelty import NoveltyModule
from training.preprocess import load
from training.properties import measure
from training.reference import Reference

OUTPUTS = ("probabilities", "embedding", "novelty", "activation")
REFERENCE_PICTURES = 2000  # at most: more make the file larger and drift checks no sharper


class ExportError(RuntimeError):
    """ONNX Runtime and torch disagree."""


class Served(nn.Module):
    """What serves: pictures uint8 [N, size, size, 3] -> the four outputs of a model folder (training.inference)."""

    def __init__(self, trained: Trained, calibration: Calibration) -> None:
        super().__init__()
        self.model = trained.model
        self.novelty = NoveltyModule(calibration.novelty)
        self.temperature = calibration.temperature

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        features = self.model.features(image.permute(0, 3, 1, 2))
        embedding = features.mean((2, 3))
        probabilities = torch.softmax(self.model.head(embedding) / self.temperature, dim=1)
        # Class-activation maps (Zhou et al. 2016): the head applied at every place of the feature map.
        activation = functional.conv2d(features, self.model.head.weight[:, :, None, None])
        return probabilities, embedding, self.novelty(embedding), activation


def prove_parity(served: Served, folder: ModelFolder, rows: Sequence[Picture], tolerance: float) -> dict[str, Any]:
    """Compare torch and ONNX Runtime on real pictures; ExportError when a probability differs by more."""
    images = np.stack([load(row.path.read_bytes(), folder.preprocessing) for row in rows])
    with torch.inference_mode():
        expected = served(torch.from_numpy(images))[0].numpy()
    difference = float(np.abs(Classifier(folder).predict(images) - expected).max())
    if not difference <= tolerance:
        raise ExportError(
            f"ONNX Runtime and torch differ by {difference:.2g} in probability on {len(rows)} pictures, "
            f"more than export.parity_tolerance = {tolerance:g}"
        )
    return {"pictures": len(rows), "max_difference": difference, "tolerance": tolerance}


def spread(rows: Sequence[Picture], count: int) -> list[Picture]:
    """`count` rows, evenly spread over the manifest, so over all classes."""
    return [rows[index] for index in np.unique(np.linspace(0, len(rows) - 1, count).astype(int))]


def reference(
    folder: ModelFolder, rows: Sequence[Picture], directions: NDArray[np.float32], max_short_side: int
) -> Reference:
    """What the model sees in the pictures `rows`. `directions` [D, k] come from training pictures: those in which
    pictures of one class differ most, each scaled to a standard deviation of one (training.novelty)."""
    images = decoded(rows, folder.preprocessing)
    classifier = Classifier(folder)
    starts = tqdm(range(0, len(rows), BATCH), "reference", unit="batch")
    parts = [
        classifier.run(np.ascontiguousarray(images[start : start + BATCH]), ("probabilities", "embedding"))
        for start in starts
    ]
    probabilities, embeddings = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    properties = [measure(image, row.width, row.height) for image, row in zip(images, rows, strict=True)]
    return Reference.build(properties, probabilities, embeddings, directions, max_short_side)


def export(settings: params.Params) -> Path:
    """Write models/model from the trained weights and their evaluation; returns the folder.

    Raises ExportError when ONNX Runtime and torch disagree. The folder appears whole or not at all.
    """
    manifest = Manifest.read()
    trained, calibration = Trained.load(), Calibration.load(CALIBRATION_FILE)
    served = Served(trained, calibration).eval()
    part = MODEL_FOLDER.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    (part / MODEL_FILE).write_bytes(onnx_bytes(served, trained.preprocessing.size, OUTPUTS))
    card = _card(settings, trained, calibration)
    test = manifest.split("test")
    folder = ModelFolder(part, card)
    card["parity"] = prove_parity(
        served, folder, spread(test, settings.export.parity_pictures), settings.export.parity_tolerance
    )
    validation = manifest.split("validation")
    rows = spread(validation, min(len(validation), REFERENCE_PICTURES))
    reference(folder, rows, calibration.novelty.projection, settings.prepare.max_short_side).save(part)
    card["self_check"] = _self_check(folder, spread(test, settings.export.self_check_pictures))
    card["mistakes"] = mistakes.embed(mistakes.worst(PREDICTIONS_FILE, settings.export.mistakes), part)
    (part / CARD_FILE).write_text(json.dumps(card, indent=2) + "\n")
    write_sums(part)
    Classifier(ModelFolder.open(part)).self_check()
    shutil.rmtree(MODEL_FOLDER, ignore_errors=True)
    part.rename(MODEL_FOLDER)
    return MODEL_FOLDER


def _card(settings: params.Params, trained: Trained, calibration: Calibration) -> dict[str, Any]:
    found = json.loads(METRICS_FILE.read_text())
    return {
        "schema": 1,
        "name": settings.register_.name,
        "architecture": trained.architecture,
        "classes": list(trained.classes),
        "preprocessing": vars(trained.preprocessing),
        "temperature": calibration.temperature,
        "metrics": found,
        "abstention": calibration.thresholds(),
        "lineage": collect(settings, MANIFEST_FILE, settings.train.seed).as_dict(),
        "params": settings.model_dump(mode="json", by_alias=True),
    }


def _self_check(folder: ModelFolder, rows: Sequence[Picture]) -> list[dict[str, Any]]:
    """Copy the pictures into the folder; returns what the model answers for each."""
    (folder.path / "self_check").mkdir()
    classifier = Classifier(folder)
    records = []
    for number, row in enumerate(rows):
        file = f"self_check/{number:02d}{row.path.suffix}"
        shutil.copyfile(row.path, folder.path / file)
        answer = classifier.predict_bytes([row.path.read_bytes()])[0]
        records.append({"file": file, "label": row.label, "probabilities": [float(value) for value in answer]})
    return records


def main() -> None:
    parser = argparse.ArgumentParser("python -m training.export", description=__doc__)
    params.add_arguments(parser, params.Export)
    arguments = parser.parse_args()
    settings = params.load()
    folder = export(settings.model_copy(update={"export": params.override(settings.export, arguments)}))
    card = json.loads((folder / CARD_FILE).read_text())
    print(f"{folder}: ONNX Runtime and torch differ by at most {card['parity']['max_difference']:.1g}")


if __name__ == "__main__":
    run_command(main, (params.ParamsError, DatasetError, EvaluationError, ExportError, LineageError))
