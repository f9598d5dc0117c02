"""What heads say about pictures that they did not learn from: cross-validation that keeps near duplicates together.

Twice: the second time without the pictures whose label the first time makes improbable (pruned, as Northcutt et al.
2021), so that wrong labels do not defend each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from training.fit.head import Features, Heads, Rows, Solver
from training.labels import noise
from training.labels.noise import Floats, Labels, Noise

FOLDS = 5
TOLERANCE = 1e-3  # of the gradient
PARAMETERS = 2_000_000  # of the heads that are solved together, so that memory is bounded


@dataclass(frozen=True)
class Learnt:
    """Pictures to learn from: features [N, D], labels [N] of `classes`, and `groups` [N] of near duplicates.

    `nothing` [J, D]: features of pictures of nothing (training.fit.nothing).
    """

    features: Features
    labels: Labels
    groups: NDArray[np.int64]
    classes: int
    strength: float
    nothing: Features
    seed: int

    @cached_property
    def fold(self) -> NDArray[np.int64]:
        """The fold [N] in which a picture is held out, that of the first of its group."""
        _, first, group = np.unique(self.groups, return_index=True, return_inverse=True)
        count = max(2, min(FOLDS, int(np.bincount(self.labels[first]).max())))
        fold = np.zeros(len(first), np.int64)
        splits = StratifiedKFold(count, shuffle=True, random_state=self.seed)
        for number, (_, rows) in enumerate(splits.split(first, self.labels[first])):
            fold[rows] = number
        return fold[group]

    @cached_property
    def weights(self) -> Floats:
        """One [N] over the number of near duplicates of a picture."""
        return noise.once(self.groups)

    def run(self) -> Answers:
        """Logits of the second round, by heads that did not see the picture, and those heads."""
        first = self._round(np.ones(len(self.labels), bool))
        return self._round(self._kept(first.noise.wrong(first.logits, self.labels) < 0.5))

    def _kept(self, likely: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """`likely` [N], but all of a class of which less than half would stay."""
        counts = [np.bincount(self.labels[rows], minlength=self.classes) for rows in (likely, likely | True)]
        return likely | (2 * counts[0] < counts[1])[self.labels]

    def _round(self, kept: NDArray[np.bool_]) -> Answers:
        heads = list(self._heads(kept))
        logits = np.zeros((len(self.labels), self.classes))
        for number, head in enumerate(heads):
            mine = self.fold == number
            logits[mine] = head.logits(self.features[mine])[0].numpy()
        return Answers(logits, heads, noise.fit(logits, self.labels, self.weights))

    def _heads(self, kept: NDArray[np.bool_]) -> Iterator[Heads]:
        """The head of each fold, several solved together."""
        columns = np.arange(self.features.shape[1])
        rows = Rows([self.features], columns, self.labels, self.classes, self.nothing)
        count = int(self.fold.max()) + 1
        together = max(1, PARAMETERS // (len(columns) * self.classes))
        for start in range(0, count, together):
            folds = np.arange(start, min(count, start + together))
            found = Solver(rows, (self.fold[:, None] != folds) & kept[:, None]).fit(self.strength, TOLERANCE)
            for place in range(len(folds)):
                yield Heads(found.weight[place : place + 1], found.bias[place : place + 1])


@dataclass(frozen=True)
class Answers:
    """Logits [N, K] of the pictures that were learnt from, each held out, the heads of the folds, and the noise."""

    logits: Floats
    heads: list[Heads]
    noise: Noise

    def others(self, features: Features) -> Floats:
        """Mean logits [M, K] for pictures that none of the heads learnt from."""
        found: Floats = np.mean([head.logits(features)[0].double().numpy() for head in self.heads], axis=0)
        return found
