"""Evaluate the trained model on the test split, and set temperature and thresholds for serving.

Temperature and thresholds come from the validation split, all figures from the test split: model_performance.json
(metrics for DVC and MLflow), models/predictions.csv (every answer) and models/plots/*.png. What is evaluated is the
ONNX graph that export ships, models/backbone.onnx, with the shortcuts that serve (training.evaluation.shortcuts).
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.manifest import PICTURES_FOLDER, Manifest, Picture, decoded, spread
from training import params
from training.common.command import run_command
from training.evaluation import behaviour, metrics, ood, plots, slices
from training.evaluation.calibration import Calibration
from training.evaluation.outputs import (
    BACKBONE_FILE,
    CALIBRATION_FILE,
    LOOK_FILE,
    METRICS_FILE,
    PLOTS_FOLDER,
    PREDICTIONS_FILE,
)
from training.evaluation.shortcuts import glance, precision
from training.evaluation.shortcuts.glance import Look
from training.evaluation.shortcuts.quantise import quantised
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
    precision: str  # fp32 or int8
    seen: dict[str, Outputs] = field(default_factory=dict)  # by title: with and without a first look it is the same

    @cached_property
    def test(self) -> tuple[Outputs, NDArray[np.int64]]:
        return self.split("test")

    def sees(self, pictures: NDArray[np.uint8], title: str) -> Outputs:
        if title not in self.seen:
            self.seen[title] = self.trained.outputs(self.backbone, pictures, title)
        return self.seen[title]

    def split(self, name: str, most: int | None = None) -> tuple[Outputs, NDArray[np.int64]]:
        """Outputs and labels of a split in manifest order, or of `most` of its pictures, of every class."""
        rows = self.manifest.split(name)
        rows = rows if most is None else spread(rows, most)
        return self.sees(decoded(rows, self.trained.preprocessing), name), self.manifest.labels(rows)

    def quantised(self) -> Evaluated:
        """The same in int8, its ranges set on pictures of the validation split."""
        return replace(self, backbone=self.in_int8(self.backbone), precision="int8", seen={})

    def in_int8(self, backbone: bytes) -> bytes:
        rows = spread(self.manifest.split("validation"), QUANTISATION_PICTURES)
        return quantised(backbone, decoded(rows, self.trained.preprocessing))

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


@dataclass(frozen=True)
class Glancing(Evaluated):
    """A network and the first look before it."""

    look: Look | None = None
    calibration: Calibration | None = None  # of the network alone

    @classmethod
    def of(cls, judged: Judged, seed: int) -> Glancing | None:
        """A judged network with a look that suits it, in its precision; None where there is none."""
        network = judged.network
        manifest, trained = network.manifest, network.trained
        side = glance.side(trained)
        if side is None or trained.head is None:
            return None
        backbone = trained.backbone(side)
        if network.precision == "int8":
            backbone = network.in_int8(backbone)
        pictures = {name: decoded(manifest.split(name), trained.preprocessing) for name in ("train", "validation")}
        labels = manifest.labels(manifest.split("train"))
        strength = float(trained.head["strength"])
        look = Look.fit(backbone, strength, (pictures["train"], labels), pictures["validation"], seed)
        if look is None:
            return None
        return cls(trained, manifest, network.backbone, network.precision, network.seen, look, judged.calibration)

    def sees(self, pictures: NDArray[np.uint8], title: str) -> Outputs:
        assert self.look is not None
        assert self.calibration is not None
        return self.look.merged(super().sees(pictures, title), self.calibration, pictures, title)


@dataclass(frozen=True)
class Judged:
    """A network, and everything that evaluation finds out about it."""

    network: Evaluated
    calibration: Calibration
    before: Floats  # probabilities [N, classes] of the test pictures without temperature,
    after: Floats  # and with it
    found: dict[str, Any]

    def because(self, why: str, **more: Any) -> Judged:
        """The same with the reason why it is this one that serves."""
        return replace(self, found=self.found | more | {"precision": {"serves": self.network.precision, "why": why}})

    def glancing(self, why: str, changes: dict[str, float] | None = None, easy: float | None = None) -> Judged:
        """The same with the reason why a first look serves, or why not, and what it changes."""
        serves = isinstance(self.network, Glancing)
        record = {"serves": serves, "why": why} | ({} if easy is None else {"easy": easy}) | (changes or {})
        return replace(self, found=self.found | {"glance": record})


def judge(network: Evaluated, settings: params.Evaluate) -> Judged:
    """Temperature and thresholds from the validation split, all figures from the test split."""
    trained = network.trained
    validation = network.split("validation")
    setting, outliers = network.others()
    if isinstance(network, Glancing) and network.calibration is not None:
        calibration = glance.calibrated(network.calibration, *validation)
    else:
        train = network.split("train", max(NOVELTY_PICTURES, NOVELTY_EACH * len(trained.classes)))
        calibration = Calibration.fit(*train, *validation, settings, setting)
    test, labels = network.test
    before, after = metrics.probabilities(test.logits, 1.0), calibration.probabilities(test)
    found = metrics.describe(after, labels, trained.classes)
    found["calibration_error_before_temperature"] = metrics.calibration_error(before, labels)
    found["reliability_before_temperature"] = metrics.reliability(before, labels)
    found["abstention"] = calibration.describe(test, labels)
    found["other_things"] = calibration.describe_others(test, outliers)
    found["behaviour"] = network.behaviour(calibration, test, settings.behaviour_pictures)
    found["behaviour"]["harmless"] = behaviour.harmless(settings.harmless, trained.views)
    rows = network.manifest.split("test")
    found["slices"] = slices.described(
        slices.slices(rows, decoded(rows, trained.preprocessing)), test.answers == labels
    )
    found["labels"] = network.before_and_after(test)
    return Judged(network, calibration, before, after, found)


def choose(fp32: Evaluated, settings: params.Params) -> Judged:
    """The network as it serves: in the precision of export.precision, and with a first look where export.glance is on.

    Of both, what changes answers must keep to the limits of the gate, and be quicker, against fp32 alone.
    """
    few = precision.too_few(fp32.manifest.split("test"), settings.promote)
    chosen = _in_precision(fp32, settings, few)
    if not settings.export.glance:
        return chosen.glancing("export.glance is off")
    if few:
        return chosen.glancing(few)
    with_look = Glancing.of(chosen, settings.train.seed)
    if with_look is None:
        return chosen.glancing("no picture is surely easy")
    return _with_look(fp32, chosen, with_look, settings)


def _in_precision(fp32: Evaluated, settings: params.Params, few: str | None) -> Judged:
    wanted, limits = settings.export.precision, settings.promote
    if wanted == "fp32":
        return judge(fp32, settings.evaluate).because("export.precision says so")
    if wanted == "auto" and few:
        return judge(fp32, settings.evaluate).because(few)
    int8 = fp32.quantised()
    (before, labels), (after, _) = fp32.test, int8.test
    changes = {"quantisation": precision.changes(before.answers, after.answers, labels)}
    if wanted == "int8":
        return judge(int8, settings.evaluate).because("export.precision says so", **changes)
    judged = judge(fp32, settings.evaluate)
    against = precision.too_different(changes["quantisation"], limits) or too_slow(fp32, int8, limits)
    if against:
        return judged.because(against, **changes)
    candidate = judge(int8, settings.evaluate)
    against = precision.worse(judged.found, candidate.found)
    if against:
        return judged.because(against, **changes)
    return candidate.because(precision.told(changes["quantisation"], limits), **changes)


def _with_look(fp32: Evaluated, chosen: Judged, candidate: Glancing, settings: params.Params) -> Judged:
    """`candidate` if it answers as fp32 does and is quicker than `chosen`, the same network without a look."""
    assert candidate.look is not None
    limits = settings.promote
    (before, labels), (after, _) = fp32.test, candidate.test
    assert after.easy is not None
    changes = precision.changes(before.answers, after.answers, labels, "glance")
    easy = float(after.easy.mean())
    against = precision.too_different(changes, limits, "glance")
    if against:
        return chosen.glancing(against, changes, easy)
    times = glance.gain(precision.speedup(chosen.network.backbone, candidate.look.backbone, _blank(fp32)), easy)
    print(f"a first look answers {easy:.1%} of the test pictures: {times:.2f} times as fast here, on one thread")
    if times < limits.min_int8_speedup:
        return chosen.glancing(f"a first look is not {limits.min_int8_speedup:g} times as fast here", changes, easy)
    judged = judge(candidate, settings.evaluate)
    against = precision.worse(chosen.found, judged.found, "a first look")
    if against:
        return chosen.glancing(against, changes, easy)
    more = {key: chosen.found[key] for key in ("precision", "quantisation") if key in chosen.found}
    changed = f"{changes['label_changes']:.2%} other answers than the whole network in fp32"
    why = f"{easy:.1%} of the test pictures are easy, {changed}, at least {limits.min_int8_speedup:g} times as fast"
    return replace(judged, found=judged.found | more).glancing(why, changes, easy)


def _blank(network: Evaluated) -> NDArray[np.uint8]:
    size = network.trained.preprocessing.size
    return np.zeros((size, size, 3), np.uint8)


def too_slow(fp32: Evaluated, int8: Evaluated, limits: params.Promote) -> str | None:
    """Why int8 is not worth it on this machine, if it is not. The figure itself is printed and not kept: it is another
    at every run, and the same weights, pictures and settings shall leave the same files."""
    times = precision.speedup(fp32.backbone, int8.backbone, _blank(fp32))
    print(f"int8 is {times:.2f} times as fast as fp32 here, one picture on one thread")
    return None if times >= limits.min_int8_speedup else f"int8 is not {limits.min_int8_speedup:g} times as fast here"


def evaluate(settings: params.Params) -> dict[str, Any]:
    """Judge models/best_model.pth; write graph, metrics, predictions, calibration and plots. Returns the metrics."""
    manifest = Manifest.read()
    set_up(settings.train.seed)
    trained = Trained.load()
    if trained.classes != manifest.classes:
        raise EvaluationError(f"the weights know {trained.classes}, the data {manifest.classes}: run `dvc repro train`")
    judged = choose(Evaluated(trained, manifest, trained.backbone(), "fp32"), settings)
    judged.calibration.save(CALIBRATION_FILE)
    BACKBONE_FILE.write_bytes(judged.network.backbone)
    Look.save(judged.network.look if isinstance(judged.network, Glancing) else None, LOOK_FILE)
    _write_predictions(manifest.split("test"), judged.after, trained.classes)
    _draw(judged, settings.evaluate.worst)
    METRICS_FILE.write_text(json.dumps(judged.found, indent=2) + "\n")
    return judged.found


def _draw(judged: Judged, worst: int) -> None:
    manifest, found = judged.network.manifest, judged.found
    before, after, labels = judged.before, judged.after, judged.network.test[1]
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
    print(f"{found['precision']['serves']} serves: {found['precision']['why']}")
    print(f"{'a' if found['glance']['serves'] else 'no'} first look: {found['glance']['why']}")
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
