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
from training.evaluation import mistakes
from training.evaluation.calibration import Calibration
from training.evaluation.novelty import NoveltyModule
from training.evaluation.outputs import BACKBONE_FILE, CALIBRATION_FILE, LOOK_FILE, METRICS_FILE, PREDICTIONS_FILE
from training.evaluation.scores import answers
from training.evaluation.shortcuts.cascade import HARD, cascade
from training.evaluation.shortcuts.glance import Look
from training.evaluation.trained import FEATURES, Floats, Trained
from training.fit.forward import runner, traced
from training.model.classifier import Classifier
from training.model.folder import CARD_FILE, MODEL_FILE, MODEL_FOLDER, ModelFolder, write_sums
from training.model.lineage import collect
from training.model.properties import measure
from training.model.reference import DIRECTIONS, Reference

OUTPUTS = ("probabilities", "embedding", "novelty", "activation")
CANDIDATES = 4  # for each picture of the self-check
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


class LookTop(Top):
    """The same for the first look: its novelty on the scale of the whole network's, its maps as large, and whether it
    leaves the picture to the whole network."""

    def __init__(self, look: Look, calibration: Calibration, places: tuple[int, int]) -> None:
        nn.Module.__init__(self)
        self.head = nn.Linear(*look.weight.shape)
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(look.weight.T))
            self.head.bias.copy_(torch.from_numpy(look.bias))
        self.novelty = NoveltyModule(look.novelty)
        self.temperature = look.temperature
        self.confidence, self.limit, self.scale = look.confidence, look.limit, look.scale(calibration)
        self.places = places

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]  # one more
        probabilities, embedding, novelty, activation = super().forward(features)
        hard = (probabilities.amax(1) < self.confidence) | (novelty > self.limit)
        larger = functional.interpolate(activation, self.places, mode="bilinear")
        return probabilities, embedding, novelty * self.scale, larger, hard


def _assembled(backbone: bytes, trained: Trained, calibration: Calibration, look: Look | None) -> bytes:
    """The graph that was evaluated with what answers from its feature map, as one ONNX file."""
    size = trained.preprocessing.size
    with torch.no_grad():
        example = trained.model.features(torch.zeros(2, 3, size, size))
    whole = _answering(backbone, Top(trained, calibration), example, OUTPUTS)
    if look is None:
        return bytes(whole.SerializeToString(deterministic=True))
    with torch.no_grad():
        seen = torch.from_numpy(runner(look.backbone)(np.zeros((2, size, size, 3), np.uint8)))
    top = LookTop(look, calibration, (example.shape[2], example.shape[3]))
    first = _answering(look.backbone, top, seen, (*OUTPUTS, HARD))
    return bytes(cascade(first, whole, OUTPUTS).SerializeToString(deterministic=True))


def _answering(backbone: bytes, top: nn.Module, example: Tensor, outputs: Sequence[str]) -> onnx.ModelProto:
    """A backbone with the layers `top` on its features, which are shaped like `example`."""
    above = onnx.load_from_string(traced(top, FEATURES, example, outputs))
    above = compose.add_prefix(above, "top/", rename_inputs=False, rename_outputs=False)
    return compose.merge_models(onnx.load_from_string(backbone), above, io_map=[(FEATURES, FEATURES)])


def expected(
    trained: Trained, calibration: Calibration, precision: str, images: NDArray[np.uint8], look: Look | None = None
) -> Floats:
    """Probabilities by another way: torch for fp32; for int8, which torch cannot run, and for a first look, which
    answers instead for some pictures, those that were evaluated."""
    if precision == "int8" or look is not None:
        whole = trained.outputs(BACKBONE_FILE.read_bytes(), images, "parity")
        seen = whole if look is None else look.merged(whole, calibration, images, "parity")
        return calibration.probabilities(seen)
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
    probabilities, embeddings = answers(Classifier(folder), images, ("probabilities", "embedding"), "reference")
    properties = [measure(image, row.width, row.height) for image, row in zip(images, rows, strict=True)]
    return Reference.build(properties, probabilities, embeddings, directions, max_short_side)


def _served(settings: params.Export) -> str:
    """The precision of models/backbone.onnx; ExportError when export.precision demands the other one."""
    served = str(json.loads(METRICS_FILE.read_text())["precision"]["serves"])
    if settings.precision not in ("auto", served):
        raise ExportError(f"{served} was evaluated, export.precision is {settings.precision}: run `dvc repro`")
    return served


def export(settings: params.Params) -> Path:
    """Write models/model from the trained weights and their evaluation; returns the folder.

    Raises ExportError when it answers otherwise than what was evaluated, or when another precision was evaluated. The
    folder appears whole or not at all.
    """
    manifest, precision = Manifest.read(), _served(settings.export)
    trained, calibration = Trained.load(), Calibration.load(CALIBRATION_FILE)
    part = MODEL_FOLDER.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    look = Look.load(LOOK_FILE)
    (part / MODEL_FILE).write_bytes(_assembled(BACKBONE_FILE.read_bytes(), trained, calibration, look))
    card = _card(settings, manifest, trained, calibration)
    test = manifest.split("test")
    folder = ModelFolder(part, card)
    images = decoded(spread(test, settings.export.parity_pictures), trained.preprocessing)
    wanted = expected(trained, calibration, precision, np.array(images), look)
    card["parity"] = _prove_parity(folder, images, wanted, settings.export.parity_tolerance)
    rows = spread(manifest.split("validation"), REFERENCE_PICTURES)
    directions = calibration.novelty.whitening(DIRECTIONS)
    reference(folder, rows, directions, settings.prepare.max_short_side).save(part)
    card["self_check"] = _self_check(folder, _firm(test, settings.export.self_check_pictures, look, folder))
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
        "precision": found["precision"]["serves"],
        "glance": found["glance"]["serves"],
        "temperature": calibration.temperature,
        "metrics": found,
        "abstention": calibration.thresholds(),
        "lineage": collect(settings, manifest.sha256, manifest.test_sha256, settings.train.seed).as_dict(),
        "params": settings.model_dump(mode="json", by_alias=True),
    }


def _firm(test: Sequence[Picture], count: int, look: Look | None, folder: ModelFolder) -> Sequence[Picture]:
    """Pictures of every class for the self-check: those of which the first look, if there is one, is surest whether to
    answer, as they have to be answered alike on every processor."""
    rows = spread(test, count)
    if look is None:
        return rows
    candidates = spread(test, CANDIDATES * count)
    firm = look.firmness(decoded(candidates, folder.preprocessing))
    found: list[Picture] = []
    for label in dict.fromkeys(row.label for row in rows):
        mine = [place for place, row in enumerate(candidates) if row.label == label]
        most = sorted(mine, key=lambda place: -firm[place])[: sum(row.label == label for row in rows)]
        found += [candidates[place] for place in sorted(most)]
    return found


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
