"""The gate: may this candidate take the champion's place? Every check with its figures; evidence that is missing fails.

The rule on quality, by the same test pictures for both:
1. never worse: the candidate's accuracy is at least the champion's;
2. non-inferior: the (exact) bootstrap interval of the accuracy difference lies above -margin, or that of the log-loss
   gain (paired bootstrap, its own error counted against the candidate) above -share, a loss too small to matter;
3. a reason to move: significantly fewer errors (McNemar's exact test), or a log-loss that is surely lower by that
   share, or training data that changed, or int8 or a first look where the champion has none, and so much faster.
So of two equal models the champion stays: moving for luck costs users a change and buys them nothing. A first model
must surely be better than guessing. Beside it stand calibration, behaviour, latency, size and identity, and the floors
(accuracy in all, by class, by slice) of those who set some.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import permutation_test

from data.manifest import Manifest, Picture, decoded, spread
from training.evaluation.metrics import CALIBRATION_BINS, calibration_error, share
from training.evaluation.paired import Contingency, sure_gain
from training.evaluation.scores import Scores, latencies_ms, score
from training.evaluation.slices import slices
from training.model.classifier import Classifier
from training.model.folder import ModelFolder, ModelFolderError
from training.params import Promote

ENOUGH = 1e-9  # floating-point slack when an accuracy is compared with a limit
PERMUTATIONS = 20  # times 1 / (1 - confidence): enough to place a p-value beside its limit
TIMED = 21  # pictures whose answers are timed: the first look of a model makes some quicker than others
BATCH = 2_000_000  # labels that are permuted at once: some 50 MB


@dataclass(frozen=True)
class Check:
    """One question of the gate, answered. `limit` says what would have passed."""

    name: str
    passed: bool
    figure: str
    limit: str


@dataclass
class Gate:
    """Candidate and champion (None: there is none yet) before the same frozen test split.

    `seen`: hashes of test pictures that the champion has learnt from, as after `prepare.test` was raised. It answers
    them better than it answers others, so the two are compared on the rest.
    """

    candidate: ModelFolder
    champion: ModelFolder | None
    manifest: Manifest
    limits: Promote
    seen: frozenset[str] = frozenset()

    def judge(self) -> list[Check]:
        """Every check, in the order of the table; scores both models where that was not done before."""
        checks = [self.test_data, self.parity, self.self_check, self.classes, self.recorded]
        checks += [self.quantisation] if "int8" in shortcuts(self.candidate) else [self.no_int8] if self._why else []
        checks += (
            [self.glance] if self.candidate.card["metrics"].get("glance") or self.candidate.card.get("glance") else []
        )
        checks += [self.probabilities, self.better_than_guessing]
        checks += [self.accuracy, self.class_accuracy, self.slice_accuracy]
        checks += [self.calibration, self.invariance, self.direction, self.minimum]
        checks += [self.latency, self.size]
        if self.champion is not None:
            checks += [self.enough_pictures]
            checks += [self.never_worse, self.non_inferior, self.reason] if self.paired.pictures else []
        return [check() for check in checks]

    @cached_property
    def pictures(self) -> tuple[Picture, ...]:
        return self.manifest.split("test")

    @cached_property
    def mine(self) -> Scores:
        return score(self.candidate, self.pictures)

    @cached_property
    def theirs(self) -> Scores:
        assert self.champion is not None
        return score(self.champion, self.pictures)

    @cached_property
    def rivals(self) -> tuple[Scores, Scores]:
        """Candidate and champion on the test pictures that neither has learnt from."""
        new = np.array([picture.sha256 not in self.seen for picture in self.pictures])
        return self.mine.where(new), self.theirs.where(new)

    @cached_property
    def paired(self) -> Contingency:
        mine, theirs = self.rivals
        return Contingency.of(mine.right, theirs.right)

    @cached_property
    def gain(self) -> float:
        """The log-loss that the candidate surely saves; negative: it may lose as much."""
        limits = self.limits
        return sure_gain(*self.rivals, limits.confidence, limits.bootstrap_samples, limits.seed)

    @property
    def share(self) -> float:
        """The log-loss that matters."""
        return self.limits.min_log_loss_gain * self.rivals[1].log_loss

    # identity

    def test_data(self) -> Check:
        recorded = self.candidate.card.get("lineage", {}).get("test_hash")
        same = recorded == self.manifest.test_sha256
        figure = f"evaluated on {_short(recorded)}, judged on {_short(self.manifest.test_sha256)}"
        return Check("same test data", same, figure, "equal: run `dvc repro`")

    def parity(self) -> Check:
        found = self.candidate.card.get("parity") or {}
        if not found.get("pictures"):
            return Check("parity", False, "no evidence in the model card", "torch and ONNX Runtime compared")
        difference, tolerance = float(found["max_difference"]), float(found["tolerance"])
        figure = f"{difference:.1e} on {found['pictures']} pictures"
        return Check("parity", difference <= tolerance, figure, f"at most {tolerance:g}")

    def self_check(self) -> Check:
        count = len(self.candidate.card.get("self_check") or [])
        if not count:
            return Check("self-check", False, "no pictures in the model folder", "same answers as recorded")
        try:
            Classifier(self.candidate).self_check()
        except ModelFolderError as error:
            return Check("self-check", False, str(error), "same answers as recorded")
        return Check("self-check", True, f"{count} pictures", "same answers as recorded")

    def classes(self) -> Check:
        known = set(self.candidate.classes)
        needed = {picture.label for picture in self.pictures} | set(self.champion.classes if self.champion else ())
        lost = sorted(needed - known)
        figure = f"lacks {', '.join(lost)}" if lost else ", ".join(self.candidate.classes)
        return Check(
            "classes",
            not lost,
            figure,
            "all of the champion's and the test split's; a new problem needs a new register.name",
        )

    def recorded(self) -> Check:
        said = self.candidate.card.get("metrics", {}).get("accuracy")
        limit = f"within {self.limits.max_recorded_difference:g} of what evaluation recorded"
        if said is None:
            return Check("recorded accuracy", False, "no evidence in the model card", limit)
        near = abs(said - self.mine.accuracy) <= self.limits.max_recorded_difference + ENOUGH
        return Check("recorded accuracy", near, f"{said:.4f}, here {self.mine.accuracy:.4f}", limit)

    def quantisation(self) -> Check:
        """An int8 model against the same weights in fp32, as evaluation recorded it; its accuracy is counted here."""
        return self._shortcut("int8", self.candidate.card["metrics"].get("quantisation") or {})

    def glance(self) -> Check:
        """The same of a first look at easy pictures; of a model without one, why it has none."""
        found = self.candidate.card["metrics"].get("glance") or {}
        if self.candidate.card.get("glance"):
            return self._shortcut("first look", found)
        return Check("first look", True, f"none: {found['why']}", "only where it is as good and quicker")

    def _shortcut(self, name: str, found: dict[str, Any]) -> Check:
        limits = self.limits
        limit = (
            f"at most {limits.max_int8_accuracy_loss:g} less accurate than the whole network in fp32, "
            f"at most {limits.max_int8_label_changes:.1%} other answers"
        )
        if "label_changes" not in found:
            return Check(name, False, "no evidence in the model card", limit)
        loss, changes = found["accuracy_fp32"] - self.mine.accuracy, found["label_changes"]
        fine = loss <= limits.max_int8_accuracy_loss + ENOUGH and changes <= limits.max_int8_label_changes + ENOUGH
        figure = f"{self.mine.accuracy:.4f}, in fp32 {found['accuracy_fp32']:.4f}, {changes:.2%} other answers"
        return Check(name, fine, figure, limit)

    def no_int8(self) -> Check:
        """Why a model serves in fp32, as evaluation recorded it."""
        return Check("int8", True, f"serves in fp32: {self._why}", "int8 only where it is as good and quicker")

    @property
    def _why(self) -> str | None:
        return (self.candidate.card["metrics"].get("precision") or {}).get("why")

    # quality by itself

    def probabilities(self) -> Check:
        rows = self.mine.probabilities
        sound = bool(np.isfinite(rows).all() and np.allclose(rows.sum(axis=1), 1, atol=1e-3))
        figure = f"{len(rows)} answers" if sound else "some are not finite or do not sum to 1"
        return Check("probabilities", sound, figure, "finite, summing to 1 for each picture")

    def better_than_guessing(self) -> Check:
        """Balanced accuracy against answers that know nothing of the pictures, the constant answer among them."""
        rate, p = better_than_guessing(self.mine.labels, self.mine.answers, self.limits.confidence, self.limits.seed)
        classes = len(set(self.mine.labels))
        figure = f"balanced accuracy {rate:.4f}, guessing {1 / classes:.4f}, p = {p:.2g}, {len(self.pictures)} pictures"
        limit = f"significantly better: p at most {1 - self.limits.confidence:.2g}"
        return Check("better than guessing", p <= 1 - self.limits.confidence + ENOUGH, figure, limit)

    def accuracy(self) -> Check:
        floor = self.limits.min_accuracy
        figure = f"{self.mine.accuracy:.4f} on {len(self.pictures)} pictures"
        return Check("accuracy", floor is None or self.mine.accuracy >= floor - ENOUGH, figure, _at_least(floor))

    def class_accuracy(self) -> Check:
        labels = np.array(self.mine.labels)
        found = {name: share(self.mine.right[labels == name]) for name in sorted(set(self.mine.labels))}
        return _not_surely_below("accuracy by class", found, self.limits.min_class_accuracy)

    def slice_accuracy(self) -> Check:
        masks = slices(self.pictures, decoded(self.pictures, self.candidate.preprocessing))
        enough = {name: mask for name, mask in masks.items() if mask.sum() >= self.limits.min_slice_pictures}
        found = {name: share(self.mine.right[mask]) for name, mask in enough.items()}
        return _not_surely_below("accuracy by slice", found, self.limits.min_slice_accuracy)

    # behaviour

    def calibration(self) -> Check:
        """The error beyond what a perfectly calibrated model would show on so few pictures by chance."""
        index = {name: number for number, name in enumerate(self.mine.classes)}
        labels = np.array([index.get(label, -1) for label in self.mine.labels])
        probabilities = self.mine.probabilities.astype(np.float64)
        found, limit = calibration_error(probabilities, labels), self.limits.max_calibration_error
        chance = chance_calibration_error(probabilities.max(axis=1))
        figure = f"ECE {found:.4f}, {chance:.4f} expected by chance"
        return Check("calibration", found - chance <= limit, figure, f"at most {limit:g} beyond chance")

    def invariance(self) -> Check:
        """Changes that must not matter to this problem (training.evaluation.behaviour); the floor holds for each, and
        fails it when the whole 95 % interval of the answers that stay lies below."""
        changes = self._behaviour.get("invariance") or {}
        harmless = self._behaviour.get("harmless")
        if harmless == []:
            return Check("invariance", True, "no change is said to be harmless", "evaluate.harmless")
        same = {name: changes[name]["same_answer"] for name in harmless or changes if name in changes}
        if not same:
            return Check("invariance", False, "no evidence in the model card", _at_least(self.limits.min_invariance))
        return _not_surely_below("invariance", same, self.limits.min_invariance)

    def direction(self) -> Check:
        """Changes that must lower the confidence."""
        limit = self.limits.max_confidence_gain
        text = f"mean confidence at most {limit:g} higher"
        found = {name: change["change"]["value"] for name, change in (self._behaviour.get("direction") or {}).items()}
        if not found:
            return Check("direction", False, "no evidence in the model card", text)
        worst = max(found, key=lambda name: found[name])
        return Check("direction", found[worst] <= limit + ENOUGH, f"worst {found[worst]:+.4f}: {worst}", text)

    def minimum(self) -> Check:
        """Pictures that anyone recognises; a test split need not have any."""
        found, limit = self._behaviour.get("minimum"), self.limits.min_named
        if found is None:
            return Check("named pictures", False, "no evidence in the model card", f"at least {limit:.0%} right")
        count, right = int(found["pictures"]), int(found["right"])
        figure = f"{right} of {count} right" if count else "none in the test split"
        return Check("named pictures", right >= limit * count - ENOUGH, figure, f"at least {limit:.0%} right")

    @property
    def _behaviour(self) -> dict[str, Any]:
        return dict(self.candidate.card["metrics"].get("behaviour") or {})

    @cached_property
    def times(self) -> list[float]:
        """Milliseconds for a picture, of the candidate and of the champion if there is one."""
        folders = [self.candidate] if self.champion is None else [self.candidate, self.champion]
        return latencies_ms(folders, [picture.path.read_bytes() for picture in spread(self.pictures, TIMED)])

    def latency(self) -> Check:
        mine, *theirs = self.times
        if not theirs:
            return Check("latency", True, f"{mine:.1f} ms", "no champion to compare with")
        ratio, limit, floor = mine / theirs[0], self.limits.max_latency_ratio, self.limits.latency_floor_ms
        fine = ratio <= limit or mine - theirs[0] <= floor
        figure = f"{mine:.1f} ms, champion {theirs[0]:.1f} ms: ratio {ratio:.2f}"
        return Check("latency", fine, figure, f"ratio at most {limit:g}, or at most {floor:g} ms more")

    def size(self) -> Check:
        megabytes = sum(path.stat().st_size for path in self.candidate.path.rglob("*") if path.is_file()) / 1e6
        limit = self.limits.max_size_mb
        return Check("size", megabytes <= limit, f"{megabytes:.1f} MB", f"at most {limit:g} MB")

    # against the champion

    def enough_pictures(self) -> Check:
        """Of a few pictures two models are often right about each, and nothing that is counted tells them apart."""
        count, least = self.paired.pictures, self.limits.min_test_pictures
        seen = len(self.pictures) - count
        figure = f"{count}; {seen} more do not count: the champion was trained on them" if seen else f"{count}"
        return Check("test pictures", count >= least, figure, f"at least {least} to compare two models by")

    def never_worse(self) -> Check:
        """A candidate that takes a shortcut which the champion does not take may lose what shortcuts may lose."""
        mine, theirs = self.rivals
        figure = f"{mine.accuracy:.4f}, champion {theirs.accuracy:.4f}"
        slack = self.limits.max_int8_accuracy_loss if self._new_shortcuts else 0.0
        limit = f"accuracy at least the champion's{f' less {slack:g}' if slack else ''}"
        return Check("never worse", self.paired.difference >= -slack - ENOUGH, figure, limit)

    def non_inferior(self) -> Check:
        low, high = self.paired.difference_interval(self.limits.confidence)
        margin = self.limits.non_inferiority_margin
        figure = (
            f"accuracy {self.paired.difference:+.4f} [{low:+.4f}, {high:+.4f}], log-loss gain surely {self.gain:+.4f}"
        )
        fine = low >= -margin - ENOUGH or self.gain >= -self.share
        return Check(
            "non-inferior", fine, figure, f"accuracy surely above -{margin:g}, or gain above -{self.share:.4f}"
        )

    def reason(self) -> Check:
        """Fewer errors, a lower log-loss, other training data, or a new shortcut and surely faster."""
        reasons = (self._fewer_errors(), self._lower_loss(), self._other_data(), self._faster())
        found = [text for text in reasons if text]
        figure = "; ".join(found) or f"none: {self._no_reason()}"
        limit = "fewer errors, lower log-loss, other training data, or a new shortcut and faster"
        return Check("reason to move", bool(found), figure, limit)

    def _fewer_errors(self) -> str | None:
        pair, p = self.paired, self.paired.mcnemar()
        if pair.difference > 0 and p <= 1 - self.limits.confidence:
            return f"fewer errors ({pair.only_a} against {pair.only_b} of its own, McNemar p = {p:.2g})"
        return None

    def _lower_loss(self) -> str | None:
        if self.gain > self.share:
            mine, theirs = (scores.log_loss for scores in self.rivals)
            return f"lower log-loss ({mine:.4f}, champion {theirs:.4f}, surely by {self.gain:.4f})"
        return None

    def _other_data(self) -> str | None:
        assert self.champion is not None
        before, now = (folder.card["lineage"]["data_hash"] for folder in (self.champion, self.candidate))
        if self.limits.accept_new_data and before != now:
            return f"trained on other data ({_short(now)}, champion {_short(before)})"
        return None

    def _faster(self) -> str | None:
        if not self._new_shortcuts:
            return None
        mine, theirs = self.times
        if theirs < self.limits.min_int8_speedup * mine:
            return None
        return f"{' and '.join(sorted(self._new_shortcuts))}: {theirs / mine:.2f} times as fast"

    @property
    def _new_shortcuts(self) -> set[str]:
        """What the candidate does to be quicker, and the champion does not; none where it gives another one up."""
        if self.champion is None:
            return set()
        mine, theirs = shortcuts(self.candidate), shortcuts(self.champion)
        return mine - theirs if mine > theirs else set()

    def _no_reason(self) -> str:
        mine, theirs = self.rivals
        losses = f"log-loss {mine.log_loss:.4f} against {theirs.log_loss:.4f}"
        if np.array_equal(mine.answers, theirs.answers):
            return f"the same answer to every picture, {losses}"
        pair = self.paired
        alone = f"each is alone right on {pair.only_a} and {pair.only_b} pictures (McNemar p = {pair.mcnemar():.2g})"
        return f"{alone}, {losses}"


def shortcuts(folder: ModelFolder) -> set[str]:
    """What makes a model quicker than its whole network in fp32, at the price of a few other answers."""
    used = {"int8": folder.card.get("precision") == "int8", "a first look": bool(folder.card.get("glance"))}
    return {name for name, there in used.items() if there}


def chance_calibration_error(confidence: NDArray[np.float64]) -> float:
    """Expected ECE of a perfectly calibrated model with these confidences, by the normal approximation in each bin."""
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    variances = confidence * (1 - confidence)
    gaps = [math.sqrt(2 / math.pi * float(variances[bins == b].sum())) for b in np.unique(bins)]
    return sum(gaps) / len(confidence)


def better_than_guessing(
    labels: Sequence[str], answers: NDArray[np.str_], confidence: float, seed: int
) -> tuple[float, float]:
    """Balanced accuracy, and the share of random pairings of these answers with these labels that reach it.

    A permutation test (Ojala and Garriga 2010, Permutation Tests for Studying Classifier Performance, test 1): exact
    for few pictures, and blind to how often a class occurs. A constant answer reaches its own figure every time.
    """
    names, truth = np.unique(np.asarray(labels), return_inverse=True)
    known = {name: number for number, name in enumerate(names)}
    guesses = np.array([known.get(answer, -1) for answer in answers])
    weights = 1 / np.bincount(truth) / len(names)

    def balanced(truths: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
        return np.asarray(np.where(truths == guesses, weights[truths], 0.0).sum(axis=axis))

    result = permutation_test(
        (truth,),
        balanced,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=math.ceil(PERMUTATIONS / (1 - confidence)),
        batch=max(1, BATCH // len(truth)),
        alternative="greater",
        rng=np.random.default_rng(seed),
    )
    return float(result.statistic), float(result.pvalue)


def _not_surely_below(name: str, found: dict[str, dict[str, Any]], floor: float | None) -> Check:
    """The worst of the groups, each a share (training.evaluation.metrics.share); it fails when its whole interval lies
    below the floor."""
    if not found:
        return Check(name, True, "no group has enough pictures", _at_least(floor))
    worst = min(found, key=lambda group: (found[group]["interval"][1], found[group]["value"]))
    low, high = found[worst]["interval"]
    figure = f"worst {found[worst]['value']:.4f} [{low:.4f}, {high:.4f}]: {worst}, of {len(found)}"
    return Check(name, floor is None or high >= floor - ENOUGH, figure, _at_least(floor))


def _at_least(floor: float | None) -> str:
    return "no floor is set" if floor is None else f"at least {floor:g}"


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "nothing"
