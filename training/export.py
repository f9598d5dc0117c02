"""Export the evaluated model: ONNX graph, model card, drift reference, pictures, checksums.

The ONNX graph holds everything between the preprocessed picture and the answer: normalisation, network, temperature,
novelty. It is the graph that was evaluated, in fp32 or int8, with the head on top. In fp32 torch and ONNX Runtime must
agree on real test pictures, or there is no model folder; in int8 the model folder must answer as it was evaluated.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import compose
from torch import Tensor, nn
from torch.nn import functional

from data.manifest import Manifest, Picture, decoded, spread
from training import params
from training.common.command import run_command
from training.common.errors import ExpectedError
from training.common.progress import Bar
from training.evaluation import mistakes
from training.evaluation.calibration import Calibration
from training.evaluation.novelty import NoveltyModule
from training.evaluation.outputs import BACKBONE_FILE, CALIBRATION_FILE, METRICS_FILE, PREDICTIONS_FILE
from training.evaluation.trained import FEATURES, Floats, Trained
from training.fit.forward import BATCH, traced
from training.model.classifier import Classifier
from training.model.folder import CARD_FILE, MODEL_FILE, MODEL_FOLDER, ModelFolder, write_sums
from training.model.lineage import collect
from training.model.properties import measure
from training.model.reference import DIRECTIONS, Reference

OUTPUTS = ("probabilities", "embedding", "novelty", "activation")
REFERENCE_PICTURES = 2000  # at most: more make the file larger and drift checks no sharper


class ExportError(ExpectedError):
    """The model folder answers otherwise than the network that was evaluated."""


class Top(nn.Module):
    """From the backbone's feature map to the four outputs of a model folder (training.model.classifier)."""

    def __init__(self, trained: Trained, calibration: Calibration) -> None:
        super().__init__()
        self.head = trained.model.head
        self.novelty = NoveltyModule(calibration.novelty)
        self.temperature = calibration.temperature

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        embedding = features.mean((2, 3))
        probabilities = torch.softmax(self.head(embedding) / self.temperature, dim=1)
        # Class-activation maps (Zhou et al. 2016): the head applied at every place of the feature map, which holds all
        # levels that the head uses, so the average of the result is the logit without its bias.
        activation = functional.conv2d(features, self.head.weight[:, :, None, None])
        return probabilities, embedding, self.novelty(embedding), activation


def _assembled(backbone: bytes, trained: Trained, calibration: Calibration) -> bytes:
    """The graph that was evaluated with what answers from its feature map, as one ONNX file."""
    size = trained.preprocessing.size
    with torch.no_grad():
        example = trained.model.features(torch.zeros(2, 3, size, size))
    below = onnx.load_from_string(backbone)
    above = onnx.load_from_string(traced(Top(trained, calibration), FEATURES, example, OUTPUTS))
    above = compose.add_prefix(above, "top/", rename_inputs=False, rename_outputs=False)
    model = compose.merge_models(below, above, io_map=[(FEATURES, FEATURES)])
    return bytes(model.SerializeToString(deterministic=True))


def expected(trained: Trained, calibration: Calibration, precision: str, images: NDArray[np.uint8]) -> Floats:
    """Probabilities by another way: torch for fp32; for int8, which torch cannot run, those that were evaluated."""
    if precision == "int8":
        return calibration.probabilities(trained.outputs(BACKBONE_FILE.read_bytes(), images, "parity"))
    with torch.inference_mode():
        features = trained.model.features(torch.from_numpy(images).permute(0, 3, 1, 2))
        probabilities: Tensor = Top(trained, calibration)(features)[0]
    return probabilities.numpy().astype(float)


def _prove_parity(folder: ModelFolder, images: NDArray[np.uint8], wanted: Floats, tolerance: float) -> dict[str, Any]:
    """Compare the answers of a model folder with `wanted`; ExportError when a probability differs by more."""
    difference = float(np.abs(Classifier(folder).predict(images) - wanted).max())
    if not difference <= tolerance:
        raise ExportError(
            f"the model folder and what was evaluated differ by {difference:.2g} in probability on {len(images)} "
            f"pictures, more than export.parity_tolerance = {tolerance:g}"
        )
    return {"pictures": len(images), "max_difference": difference, "tolerance": tolerance}


def reference(
    folder: ModelFolder, rows: Sequence[Picture], directions: NDArray[np.float32], max_short_side: int
) -> Reference:
    """What the model sees in the pictures `rows`; `directions` [D, k], from training pictures, make the sketches."""
    images = decoded(rows, folder.preprocessing)
    classifier = Classifier(folder)
    starts = Bar(range(0, len(rows), BATCH), "reference", unit="batch")
    parts = [
        classifier.run(np.ascontiguousarray(images[start : start + BATCH]), ("probabilities", "embedding"))
        for start in starts
    ]
    probabilities, embeddings = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    properties = [measure(image, row.width, row.height) for image, row in zip(images, rows, strict=True)]
    return Reference.build(properties, probabilities, embeddings, directions, max_short_side)


def export(settings: params.Params) -> Path:
    """Write models/model from the trained weights and their evaluation; returns the folder.

    Raises ExportError when it answers otherwise than what was evaluated. The folder appears whole or not at all.
    """
    manifest = Manifest.read()
    trained, calibration = Trained.load(), Calibration.load(CALIBRATION_FILE)
    part = MODEL_FOLDER.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    (part / MODEL_FILE).write_bytes(_assembled(BACKBONE_FILE.read_bytes(), trained, calibration))
    card = _card(settings, manifest, trained, calibration)
    test = manifest.split("test")
    folder = ModelFolder(part, card)
    images = decoded(spread(test, settings.export.parity_pictures), trained.preprocessing)
    wanted = expected(trained, calibration, settings.export.precision, np.array(images))
    card["parity"] = _prove_parity(folder, images, wanted, settings.export.parity_tolerance)
    rows = spread(manifest.split("validation"), REFERENCE_PICTURES)
    directions = calibration.novelty.whitening(DIRECTIONS)
    reference(folder, rows, directions, settings.prepare.max_short_side).save(part)
    card["self_check"] = _self_check(folder, spread(test, settings.export.self_check_pictures))
    card["mistakes"] = mistakes.embed(mistakes.worst(PREDICTIONS_FILE, settings.export.mistakes), part)
    (part / CARD_FILE).write_text(json.dumps(card, indent=2) + "\n")
    write_sums(part)
    Classifier(ModelFolder.open(part)).self_check()
    shutil.rmtree(MODEL_FOLDER, ignore_errors=True)
    part.rename(MODEL_FOLDER)
    return MODEL_FOLDER


def _card(settings: params.Params, manifest: Manifest, trained: Trained, calibration: Calibration) -> dict[str, Any]:
    found = json.loads(METRICS_FILE.read_text())
    return {
        "schema": 1,
        "name": settings.register_.name,
        "architecture": trained.architecture,
        "classes": list(trained.classes),
        "preprocessing": trained.preprocessing.as_dict(),
        "head": trained.head,
        "precision": settings.export.precision,
        "temperature": calibration.temperature,
        "metrics": found,
        "abstention": calibration.thresholds(),
        "lineage": collect(settings, manifest.sha256, manifest.test_sha256, settings.train.seed).as_dict(),
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
    parser = argparse.ArgumentParser(
        "python -m training.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    params.add_arguments(parser, params.Export)
    arguments = parser.parse_args()
    settings = params.load()
    folder = export(settings.model_copy(update={"export": params.override(settings.export, arguments)}))
    card = json.loads((folder / CARD_FILE).read_text())
    print(f"{folder}: ONNX Runtime matches the evaluation to within {card['parity']['max_difference']:.1g}")


if __name__ == "__main__":
    run_command(main)
