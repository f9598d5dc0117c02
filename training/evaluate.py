"""Judge the trained weights on the untouched test split, and set what serving needs: temperature and thresholds.

Temperature and thresholds come from the validation split, every figure from the test split:
model_performance.json (metrics for DVC and MLflow), models/predictions.csv (each answer) and models/plots/*.png.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training import metrics, params, plots
from training.command import run_command
from training.dataset import PICTURES_FOLDER, DatasetError, Manifest, Picture, decoded
from training.device import DeviceError, set_up
from training.fit import read_history
from training.forward import Network, forward
from training.models import Classifier, build
from training.novelty import Novelty
from training.preprocess import Preprocessing
from training.train import HISTORY_FILE, SUMMARY_FILE, WEIGHTS_FILE, Pool

METRICS_FILE = Path("model_performance.json")
PREDICTIONS_FILE = Path("models/predictions.csv")
PLOTS_FOLDER = Path("models/plots")
CALIBRATION_FILE = Path("models/calibration.npz")
NOVELTY_PICTURES = 1000  # of the training split: enough for a covariance of 64 directions

Floats = NDArray[np.float64]


class EvaluationError(RuntimeError):
    """There are no weights to judge, or they do not fit the data."""


@dataclass(frozen=True)
class Trained:
    """The weights of `train` in their architecture, ready to judge."""

    model: Classifier
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    architecture: str

    @classmethod
    def load(cls) -> Trained:
        """Raises EvaluationError when there are no weights."""
        if not (SUMMARY_FILE.is_file() and WEIGHTS_FILE.is_file()):
            raise EvaluationError(f"{WEIGHTS_FILE} is missing: run `dvc repro train` (or `make run`) first")
        summary = json.loads(SUMMARY_FILE.read_text())
        classes, how = tuple(summary["classes"]), Preprocessing(**summary["preprocessing"])
        model = build(summary["architecture"], None, len(classes))
        model.load_state_dict(torch.load(WEIGHTS_FILE, weights_only=True))
        return cls(model.eval(), classes, how, summary["architecture"])


@dataclass(frozen=True)
class Outputs:
    """Of one split: logits [N, classes], embeddings [N, D], labels [N]."""

    logits: Floats
    embeddings: Floats
    labels: NDArray[np.int64]


def outputs(trained: Trained, manifest: Manifest, split: str, device: torch.device, most: int | None = None) -> Outputs:
    """Outputs of the network for the pictures of `split` in manifest order, or for `most` of them, evenly spread."""
    rows = manifest.split(split)
    if most is not None and len(rows) > most:
        rows = tuple(rows[index] for index in np.linspace(0, len(rows) - 1, most).astype(int))
    pictures = decoded(rows, trained.preprocessing)
    network = Network(trained.model.normalise, nn.Sequential(trained.model.backbone, Pool())).eval()
    parts = forward(network, device, pictures.__getitem__, len(rows), trained.preprocessing.size, split)
    embeddings = np.concatenate([part for _, part in parts])
    with torch.inference_mode():
        logits = trained.model.head.cpu()(torch.from_numpy(embeddings)).numpy()
    return Outputs(logits.astype(float), embeddings.astype(float), manifest.labels(rows))


@dataclass(frozen=True)
class Calibration:
    """What serving needs beside the weights, all of it from pictures outside the test split."""

    temperature: float
    novelty: Novelty
    confidence_threshold: float
    novelty_threshold: float
    risk: float
    novelty_quantile: float

    @classmethod
    def fit(cls, train: Outputs, validation: Outputs, settings: params.Evaluate) -> Calibration:
        temperature = metrics.fit_temperature(validation.logits, validation.labels)
        probs = metrics.probabilities(validation.logits, temperature)
        novelty = Novelty.fit(train.embeddings, train.labels)
        return cls(
            temperature,
            novelty,
            metrics.risk_threshold(probs, validation.labels, settings.risk),
            float(np.quantile(novelty.score(validation.embeddings), settings.novelty_quantile)),
            settings.risk,
            settings.novelty_quantile,
        )

    def probabilities(self, outputs: Outputs) -> Floats:
        return metrics.probabilities(outputs.logits, self.temperature)

    def describe(self, test: Outputs) -> dict[str, float]:
        """The thresholds, and what they come to on the test split: share answered, accuracy of the answers."""
        probs = self.probabilities(test)
        answered = (probs.max(1) >= self.confidence_threshold) & (
            self.novelty.score(test.embeddings) <= self.novelty_threshold
        )
        right = probs.argmax(1) == test.labels
        return self.thresholds() | {
            "answered": float(answered.mean()),
            "accuracy_of_answers": float(right[answered].mean()) if answered.any() else 0.0,
        }

    def thresholds(self) -> dict[str, float]:
        names = ("confidence_threshold", "risk", "novelty_threshold", "novelty_quantile")
        return {name: getattr(self, name) for name in names}

    def save(self, path: Path) -> None:
        np.savez(
            path,
            temperature=self.temperature,
            projection=self.novelty.projection,
            centres=self.novelty.centres,
            confidence_threshold=self.confidence_threshold,
            novelty_threshold=self.novelty_threshold,
            risk=self.risk,
            novelty_quantile=self.novelty_quantile,
        )

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Raises EvaluationError when `evaluate` has not run."""
        if not path.is_file():
            raise EvaluationError(f"{path} is missing: run `dvc repro evaluate` (or `make run`) first")
        with np.load(path) as stored:
            novelty = Novelty(stored["projection"], stored["centres"])
            names = ("temperature", "confidence_threshold", "novelty_threshold", "risk", "novelty_quantile")
            return cls(novelty=novelty, **{name: float(stored[name]) for name in names})


def evaluate(settings: params.Params) -> dict[str, Any]:
    """Judge models/best_model.pth and write metrics, predictions, calibration and plots; returns the metrics."""
    manifest = Manifest.read()
    device = set_up(settings.train.seed)
    trained = Trained.load()
    if trained.classes != manifest.classes:
        raise EvaluationError(f"the weights know {trained.classes}, the data {manifest.classes}: run `dvc repro train`")
    train = outputs(trained, manifest, "train", device, NOVELTY_PICTURES)
    validation, test = (outputs(trained, manifest, split, device) for split in ("validation", "test"))
    calibration = Calibration.fit(train, validation, settings.evaluate)
    before, after = metrics.probabilities(test.logits, 1.0), calibration.probabilities(test)
    found = metrics.describe(after, test.labels, trained.classes)
    found["calibration_error_before_temperature"] = metrics.calibration_error(before, test.labels)
    found["reliability_before_temperature"] = metrics.reliability(before, test.labels)
    found["abstention"] = calibration.describe(test)
    rows = manifest.split("test")
    calibration.save(CALIBRATION_FILE)
    _write_predictions(rows, after, trained.classes)
    plots.confusion(found["confusion_matrix"], trained.classes, PLOTS_FOLDER / "confusion_matrix.png")
    plots.reliability(before, after, test.labels, PLOTS_FOLDER / "reliability.png")
    plots.roc(after, test.labels, trained.classes, PLOTS_FOLDER / "roc.png")
    plots.learning_curves(read_history(HISTORY_FILE), PLOTS_FOLDER / "learning_curves.png")
    files = [row.path for row in rows]
    worst = PLOTS_FOLDER / "worst_mistakes.png"
    plots.worst(files, after, test.labels, trained.classes, settings.evaluate.worst, worst)
    METRICS_FILE.write_text(json.dumps(found, indent=2) + "\n")
    return found


def _write_predictions(rows: Sequence[Picture], probs: Floats, classes: tuple[str, ...]) -> None:
    with PREDICTIONS_FILE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "sha256", "label", "prediction", *classes])
        for row, values in zip(rows, probs, strict=True):
            name = row.path.relative_to(PICTURES_FOLDER).as_posix()
            writer.writerow(
                [name, row.sha256, row.label, classes[values.argmax()], *(f"{value:.7f}" for value in values)]
            )


def main() -> None:
    parser = argparse.ArgumentParser("python -m training.evaluate", description=__doc__)
    params.add_arguments(parser, params.Evaluate)
    arguments = parser.parse_args()
    settings = params.load()
    found = evaluate(settings.model_copy(update={"evaluate": params.override(settings.evaluate, arguments)}))
    low, high = found["accuracy_interval"]
    print(
        f"test accuracy {found['accuracy']:.4f} (95 % interval {low:.4f} to {high:.4f}), {found['pictures']} pictures"
    )


if __name__ == "__main__":
    run_command(main, (params.ParamsError, DatasetError, DeviceError, EvaluationError))
