"""Evaluate the trained model on the test split, and set temperature and thresholds for serving.

Temperature and thresholds come from the validation split, all figures from the test split: model_performance.json
(metrics for DVC and MLflow), models/predictions.csv (every answer) and models/plots/*.png. What is evaluated is the
ONNX graph that export ships, models/backbone.onnx, in the precision that serves.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.manifest import PICTURES_FOLDER, Manifest, Picture, decoded, spread
from training import params
from training.common.command import run_command
from training.evaluation import behaviour, metrics, ood, plots, slices
from training.evaluation.calibration import Calibration
from training.evaluation.outputs import BACKBONE_FILE, CALIBRATION_FILE, METRICS_FILE, PLOTS_FOLDER, PREDICTIONS_FILE
from training.evaluation.quantise import quantised
from training.evaluation.trained import EvaluationError, Floats, Outputs, Trained
from training.fit.device import set_up
from training.fit.loop import read_history
from training.fit.outputs import HISTORY_FILE
from training.model.columns import EVALUATED, of_classes

NOVELTY_PICTURES = 1000  # of the training split: enough for a covariance of 64 directions,
NOVELTY_EACH = 5  # and for the means of many classes
QUANTISATION_PICTURES = 128  # of the validation split: enough for the range of every layer


@dataclass(frozen=True)
class Evaluated:
    """The network as it serves, before the pictures of one manifest."""

    trained: Trained
    manifest: Manifest
    backbone: bytes

    def sees(self, pictures: NDArray[np.uint8], title: str) -> Outputs:
        return self.trained.outputs(self.backbone, pictures, title)

    def split(self, name: str, most: int | None = None) -> tuple[Outputs, NDArray[np.int64]]:
        """Outputs and labels of a split in manifest order, or of `most` of its pictures, of every class."""
        rows = self.manifest.split(name)
        rows = rows if most is None else spread(rows, most)
        return self.sees(decoded(rows, self.trained.preprocessing), name), self.manifest.labels(rows)

    def quantised(self) -> Evaluated:
        """The same in int8, its ranges set on pictures of the validation split."""
        rows = spread(self.manifest.split("validation"), QUANTISATION_PICTURES)
        images = decoded(rows, self.trained.preprocessing)
        return replace(self, backbone=quantised(self.backbone, images))

    def behaviour(self, calibration: Calibration, test: Outputs, most: int) -> dict[str, Any]:
        """Of the test split: `most` of its pictures changed (training.evaluation.behaviour), and its named pictures."""
        rows = self.manifest.split("test")

        def probabilities(pictures: NDArray[np.uint8], title: str) -> Floats:
            return calibration.probabilities(self.sees(pictures, title))

        files = [row.path.read_bytes() for row in spread(rows, most)]
        found = behaviour.measure(probabilities, files, self.trained.preprocessing)
        right = test.answers == self.manifest.labels(rows)
        found["minimum"] = behaviour.minimum([row.source for row in rows], right, behaviour.named())
        return found

    def before_and_after(self, test: Outputs) -> dict[str, Any]:
        """The accuracy on labels as the source gave them, and as people corrected them (data/corrections.csv)."""
        dropped = self.manifest.dropped
        answers = test.answers.tolist()
        if dropped:
            answers += self.sees(decoded(dropped, self.trained.preprocessing), "dropped").answers.tolist()
        rows = (*self.manifest.split("test"), *dropped)
        return metrics.before_and_after(
            [self.trained.classes[answer] for answer in answers],
            [row.given or row.label for row in rows],
            [row.label if row.split == "test" else None for row in rows],
        )

    def others(self) -> tuple[Outputs | None, dict[str, Outputs]]:
        """Outputs for pictures of other things: those that set the threshold, if they must, and the others by kind."""
        found = {kind: self.sees(seen, kind) for kind, seen in ood.pictures(self.trained.preprocessing).items()}
        if not self.trained.enlarges:
            return None, found
        first = {kind: ood.halves(kind, len(seen.answers)) for kind, seen in found.items()}
        setting = Outputs.joined([seen.where(first[kind]) for kind, seen in found.items()])
        return setting, {kind: seen.where(~first[kind]) for kind, seen in found.items()}


def evaluate(settings: params.Params) -> dict[str, Any]:
    """Judge models/best_model.pth; write graph, metrics, predictions, calibration and plots. Returns the metrics."""
    manifest = Manifest.read()
    set_up(settings.train.seed)
    trained = Trained.load()
    if trained.classes != manifest.classes:
        raise EvaluationError(f"the weights know {trained.classes}, the data {manifest.classes}: run `dvc repro train`")
    fp32 = Evaluated(trained, manifest, trained.backbone())
    judged = fp32.quantised() if settings.export.precision == "int8" else fp32
    validation = judged.split("validation")
    setting, outliers = judged.others()
    train = judged.split("train", max(NOVELTY_PICTURES, NOVELTY_EACH * len(trained.classes)))
    calibration = Calibration.fit(*train, *validation, settings.evaluate, setting)
    test, labels = judged.split("test")
    before, after = metrics.probabilities(test.logits, 1.0), calibration.probabilities(test)
    found = metrics.describe(after, labels, trained.classes)
    found["calibration_error_before_temperature"] = metrics.calibration_error(before, labels)
    found["reliability_before_temperature"] = metrics.reliability(before, labels)
    found["abstention"] = calibration.describe(test, labels)
    found["other_things"] = calibration.describe_others(test, outliers)
    found["behaviour"] = judged.behaviour(calibration, test, settings.evaluate.behaviour_pictures)
    found["behaviour"]["harmless"] = behaviour.harmless(settings.evaluate.harmless, trained.views)
    rows = manifest.split("test")
    masks = slices.slices(rows, decoded(rows, trained.preprocessing))
    found["slices"] = slices.described(masks, test.answers == labels)
    found["labels"] = judged.before_and_after(test)
    if judged is not fp32:
        found["quantisation"] = _quantisation(fp32.split("test")[0], test, labels)
    calibration.save(CALIBRATION_FILE)
    BACKBONE_FILE.write_bytes(judged.backbone)
    _write_predictions(manifest.split("test"), after, trained.classes)
    _draw(found, before, after, labels, manifest, settings.evaluate.worst)
    METRICS_FILE.write_text(json.dumps(found, indent=2) + "\n")
    return found


def _quantisation(fp32: Outputs, int8: Outputs, labels: NDArray[np.int64]) -> dict[str, float]:
    """What int8 changed on the test split, against the same weights in fp32."""
    return {
        "accuracy_fp32": float((fp32.answers == labels).mean()),
        "label_changes": float((fp32.answers != int8.answers).mean()),
    }


def _draw(
    found: dict[str, Any], before: Floats, after: Floats, labels: NDArray[np.int64], manifest: Manifest, worst: int
) -> None:
    classes, files = manifest.classes, [row.path for row in manifest.split("test")]
    if "confusion_matrix" in found:
        plots.confusion(found["confusion_matrix"], classes, PLOTS_FOLDER / "confusion_matrix.png")
    else:
        plots.confused(found["confused"], PLOTS_FOLDER / "confused.png")
    plots.reliability(before, after, labels, PLOTS_FOLDER / "reliability.png")
    plots.roc(after, labels, classes, PLOTS_FOLDER / "roc.png")
    plots.learning_curves(read_history(HISTORY_FILE), PLOTS_FOLDER / "learning_curves.png")
    plots.worst(files, after, labels, classes, worst, PLOTS_FOLDER / "worst_mistakes.png")


def _write_predictions(rows: Sequence[Picture], probs: Floats, classes: tuple[str, ...]) -> None:
    with PREDICTIONS_FILE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*EVALUATED, *of_classes(classes, EVALUATED)])
        for row, values in zip(rows, probs, strict=True):
            name = row.path.relative_to(PICTURES_FOLDER).as_posix()
            writer.writerow(
                [name, row.sha256, row.label, classes[values.argmax()], *(f"{value:.7f}" for value in values)]
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m training.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    params.add_arguments(parser, params.Evaluate)
    arguments = parser.parse_args()
    settings = params.load()
    found = evaluate(settings.model_copy(update={"evaluate": params.override(settings.evaluate, arguments)}))
    low, high = found["accuracy_interval"]
    print(
        f"test accuracy {found['accuracy']:.4f} (95 % interval {low:.4f} to {high:.4f}), {found['pictures']} pictures"
    )
    labels = found["labels"]
    if labels["relabelled"] or labels["dropped"]:
        given, audited = (labels[name]["value"] for name in ("as_given", "audited"))
        print(f"  on labels as given {given:.4f}, on audited labels {audited:.4f}")


if __name__ == "__main__":
    run_command(main)
