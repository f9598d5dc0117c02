"""Which levels, views and strength a head gets: chosen by cross-validation on the training split, on log loss.

Strength is the strongest within one standard error of the best (Breiman et al. 1984), on the pictures as they are and
on the same pictures changed as others may send them (training.fit.augment.CHANGES): blurred or sharp, dark or bright.
Log loss is taken at its best temperature, since evaluation gives every model one: without it a strong regularisation
looks worse than it is. More views and levels must earn their place. A view is taken when it is better by more than a
standard error of the difference, of plain and changed pictures together. Levels must be that much better on plain
pictures, and not surely worse on changed ones and at telling pictures from the same ones in pieces by confidence:
early levels follow sharpness and grain, which say much within one collection and mislead on the next.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from training.fit.augment import PLAIN, extended
from training.fit.head import Features, Heads, Rows, Solver
from training.fit.temperature import fit_temperature

FOLDS = 5
STRENGTHS = tuple(float(10**power) for power in np.arange(1.0, -4.5, -0.5))  # from strong to weak
TOLERANCE = 1e-3  # of the gradient; the final fit is exact
SURE = 2  # standard errors, of a loss that is no chance
LITTLE = 0.02  # in the share of pictures with more confidence than one in pieces (an AUROC): less does not matter
STALE = 1  # strengths without a better loss before the weaker ones are left out
NEAR = 2  # places to both sides of the best strength so far, where later candidates are tried
PARAMETERS = 2_000_000  # of all folds together: with more classes fewer folds are tried, so that memory is bounded
CURVE = (0.25, 0.5)  # shares of the pictures for the learning curve

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
ByView = Callable[[str], Features]  # view -> [N, D]


@dataclass(frozen=True)
class Candidate:
    """One way to make a head: the levels of the backbone by name, and the views it learns from."""

    levels: str
    views: tuple[str, ...]


@dataclass(frozen=True)
class Trial:
    """What one strength came to: log loss of N held-out pictures as they are and of M of them changed, the share of
    errors, and for each of those M in pieces the share of the N that have more confidence."""

    strength: float
    plain: Floats
    changed: Floats
    error: float
    apart: Floats = field(default_factory=lambda: np.zeros(1))

    @property
    def loss(self) -> float:
        return float(self.plain.mean() + self.changed.mean()) / 2

    def beats(self, other: Trial) -> bool:
        """Better by more than a standard error of the difference, of plain and changed pictures together."""
        pairs = [(self.plain, other.plain), (self.changed, other.changed)]
        gains = [_gain(theirs - mine) for mine, theirs in pairs]
        return sum(gain for gain, _ in gains) > sum(error for _, error in gains)

    def safely_beats(self, other: Trial) -> bool:
        """Better on plain pictures, and not surely worse on changed ones or at confidence."""
        better, error = _gain(other.plain - self.plain)
        changed, changed_error = _gain(other.changed - self.changed)
        apart, apart_error = _gain(self.apart - other.apart)
        safe = changed >= -SURE * changed_error and apart >= -max(SURE * apart_error, LITTLE)
        return better > error and safe


@dataclass(frozen=True)
class Judged:
    """A candidate with its trials, from strong to weak."""

    candidate: Candidate
    trials: tuple[Trial, ...]

    @cached_property
    def best(self) -> Trial:
        return min(self.trials, key=lambda trial: trial.loss)

    @cached_property
    def chosen(self) -> Trial:
        """The strongest within one standard error of the best, both plain and changed."""
        places = [self._strongest([getattr(trial, kind) for trial in self.trials]) for kind in ("plain", "changed")]
        return self.trials[max(places)]

    def _strongest(self, losses: Sequence[Floats]) -> int:
        best = min(losses, key=lambda one: float(one.mean()))
        most = best.mean() + best.std() / len(best) ** 0.5
        return next(place for place, one in enumerate(losses) if one.mean() <= most)


@dataclass(frozen=True)
class Choice:
    """The candidate that won, its strength, the table of all, and how the error falls with more pictures."""

    candidate: Candidate
    strength: float
    error: float
    table: list[dict[str, Any]] = field(default_factory=list)
    learning_curve: list[dict[str, float]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Search:
    """Cross-validation over N pictures: `features(view)` [N, D], and of those at `held` changed: [M, D].

    `groups` [N]: near duplicates have the same number. `pieces` [M, D] are those in pieces, `nothing` [J, D] pictures
    of nothing (training.fit.nothing). `columns` names, for each choice of levels, which of the D features it takes, the
    first the simplest one.
    """

    features: ByView
    changed: Mapping[str, Features]
    pieces: Features
    nothing: Features
    held: NDArray[np.int64]
    labels: Labels
    groups: Labels
    classes: int
    columns: Mapping[str, NDArray[np.int64]]
    seed: int

    @cached_property
    def fold(self) -> NDArray[np.int64]:
        """The fold [N] in which a picture is held out. A group is held out as a whole, since a head that has seen one
        of two near duplicates knows the other; unless a class is a single group, which nobody could learn then."""
        count = max(2, min(FOLDS, int(np.bincount(self.labels).max())))
        fold = np.zeros(len(self.labels), np.int64)
        of_class = [len(np.unique(self.groups[self.labels == label])) for label in np.unique(self.labels)]
        grouped = len(np.unique(self.groups)) < len(self.groups) and min(of_class) > 1
        kind = StratifiedGroupKFold if grouped else StratifiedKFold
        splits = kind(count, shuffle=True, random_state=self.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of classes with fewer pictures than folds: so it is
            for number, (_, rows) in enumerate(splits.split(fold, self.labels, self.groups if grouped else None)):
                fold[rows] = number
        return fold

    def run(self, views: Sequence[str]) -> Choice:
        """Try views on the simplest levels, then the other levels with the views that helped."""
        simplest = next(iter(self.columns))
        best = self.judge(Candidate(simplest, (PLAIN,)))
        tried = [best]
        for view in views:
            tried.append(self.judge(Candidate(simplest, extended(best.candidate.views, view)), best))
            best = tried[-1] if tried[-1].best.beats(best.best) else best
        for levels in list(self.columns)[1:]:
            tried.append(self.judge(Candidate(levels, best.candidate.views), best))
            best = tried[-1] if tried[-1].chosen.safely_beats(best.chosen) else best
        return Choice(
            best.candidate,
            best.chosen.strength,
            best.chosen.error,
            [_row(one, one is best) for one in tried],
            self.curve(best),
        )

    def judge(self, candidate: Candidate, like: Judged | None = None) -> Judged:
        """The path from strong to weak, until neither kind of loss gets any better; near the best one of `like`."""
        place = STRENGTHS.index(like.best.strength) if like else 0
        path = STRENGTHS[max(0, place - NEAR) : place + NEAR + 1] if like else STRENGTHS
        solver, heads = self._solver(candidate, np.ones(len(self.labels), bool))
        trials: list[Trial] = []
        for strength in path:
            trials.append(self._trial(solver.fit(strength, TOLERANCE), candidate, strength, heads))
            best = [min(range(len(trials)), key=lambda at: getattr(trials[at], kind).mean()) for kind in KINDS]
            if len(trials) - 1 - max(best) >= STALE:
                break
        return Judged(candidate, tuple(trials))

    def curve(self, judged: Judged) -> list[dict[str, float]]:
        """Cross-validated log loss and accuracy with a share of the pictures to learn from, then with all."""
        order = np.random.default_rng(self.seed).permutation(len(self.labels))
        found = []
        for share in CURVE:
            kept = np.zeros(len(order), bool)
            for label in range(self.classes):
                mine = order[self.labels[order] == label]
                kept[mine[: max(1, round(share * len(mine)))]] = True
            solver, heads = self._solver(judged.candidate, kept)
            strength = min(STRENGTHS[0], judged.chosen.strength / share)
            trial = self._trial(solver.fit(strength, TOLERANCE), judged.candidate, strength, heads)
            found.append(_point(int(kept.sum()), trial))
        return [*found, _point(len(order), judged.chosen)]

    def _solver(self, candidate: Candidate, kept: NDArray[np.bool_]) -> tuple[Solver, int]:
        """A solver of the first folds, as many as memory allows, on the pictures `kept`; and how many folds."""
        columns = self.columns[candidate.levels]
        heads = int(max(1, min(self.fold.max() + 1, PARAMETERS // (len(columns) * self.classes))))
        rows = Rows([self.features(view) for view in candidate.views], columns, self.labels, self.classes, self.nothing)
        masks = (self.fold[:, None] != np.arange(heads)) & kept[:, None]
        return Solver(rows, np.tile(masks, (len(candidate.views), 1))), heads

    def _trial(self, heads: Heads, candidate: Candidate, strength: float, count: int) -> Trial:
        columns = self.columns[candidate.levels]
        out = np.flatnonzero(self.fold < count)
        logits = self._held_out(heads, self.features(PLAIN), out, columns)
        labels = self.labels[out]
        temperature = fit_temperature(logits, labels)
        held = np.flatnonzero(self.fold[self.held] < count)

        def seen(features: Features) -> Floats:
            return self._held_out(heads, features, held, columns, self.held) / temperature

        truth = self.labels[self.held[held]]
        changed = np.mean([log_loss(seen(found), truth) for found in self.changed.values()], axis=0)
        sure, less = (-log_loss(one, one.argmax(1)) for one in (logits / temperature, seen(self.pieces)))
        apart = 1 - np.searchsorted(np.sort(sure), less, "right") / len(sure)
        error = float((logits.argmax(1) != labels).mean())
        return Trial(strength, log_loss(logits / temperature, labels), changed, error, apart)

    def _held_out(
        self,
        heads: Heads,
        features: Features,
        rows: NDArray[np.int64],
        columns: NDArray[np.int64],
        pictures: NDArray[np.int64] | None = None,
    ) -> Floats:
        """Logits of `rows` of `features` (of all pictures, or of those named), each by the head that did not see it."""
        fold = self.fold[rows] if pictures is None else self.fold[pictures[rows]]
        found = np.zeros((len(rows), self.classes))
        for number in np.unique(fold):
            mine = fold == number
            one = Heads(heads.weight[number : number + 1], heads.bias[number : number + 1])
            found[mine] = one.logits(features[rows[mine]][:, columns])[0].numpy()
        return found


KINDS = ("plain", "changed")


def log_loss(logits: Floats, labels: Labels) -> Floats:
    """Log loss [N] of each picture, nats."""
    found: Floats = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
    return found


def _gain(differences: Floats) -> tuple[float, float]:
    """The mean and its standard error."""
    return float(differences.mean()), float(differences.std()) / len(differences) ** 0.5


def _point(pictures: int, trial: Trial) -> dict[str, float]:
    return {"pictures": pictures, "log_loss": float(trial.plain.mean()), "accuracy": 1 - trial.error}


def _row(judged: Judged, chosen: bool) -> dict[str, Any]:
    trial = judged.chosen
    return {
        "levels": judged.candidate.levels,
        "views": list(judged.candidate.views),
        "strength": trial.strength,
        "log_loss": float(trial.plain.mean()),
        "changed_log_loss": float(trial.changed.mean()),
        "apart": float(trial.apart.mean()),
        "error": trial.error,
        "chosen": chosen,
    }
