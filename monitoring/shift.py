"""Do two sets of pictures come from the same source? Nine tests at one false-alarm rate for all of them together.

Every test is a distance between the two sets: Kolmogorov-Smirnov's for each property and for the confidence, total
variation for the labels, maximum mean discrepancy for the embeddings (Gretton et al. 2012, A Kernel Two-Sample Test;
Gaussian kernel, its bandwidth the median distance). What a distance means is learnt from the pictures at hand: they are
dealt anew into two sets of the same sizes, thousands of times. That is exact for sets of any size and for values that
repeat, as aspects do, where the tables behind usual tests are not.

All tests use the same deals, so their joint chance is known too: the threshold of the p-values is the one that some
test crosses in a share `false_alarms` of the deals (minP of Westfall and Young 1993, Resampling-Based Multiple
Testing). It takes less from each test than Bonferroni or Holm do where several tests see the same. Only numpy is
needed, so the check runs in the image of the service; drift libraries would bring hundreds of megabytes into it.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.model.properties import PROPERTIES
from training.model.reference import DIRECTIONS, Reference

Floats = NDArray[np.float64]
Deals = NDArray[np.bool_]
Distance = Callable[[Deals], Floats]

FIGURES = (*PROPERTIES, "confidence")
TESTS = (*FIGURES, "embedding", "labels")
SHORT_SIDE = PROPERTIES.index("short_side")
DECIMALS = 3  # of figures: an aspect of 4/3 is the same in a log and in an array of float32
EXACT = 6  # decimals of distances: those that are equal but for rounding are equal
DEALT = 250  # at once: keeps memory flat


@dataclass(frozen=True)
class Sample:
    """N pictures: figures [N, 7] by FIGURES, labels [N] (places in the model's classes), sketches [N, 32]."""

    figures: Floats
    labels: NDArray[np.int64]
    sketches: NDArray[np.float32]

    @classmethod
    def of(
        cls, properties: NDArray[Any], confidences: NDArray[Any], labels: NDArray[Any], sketches: NDArray[Any], cap: int
    ) -> Sample:
        """`cap`: pixels of the short side from which on a size is no longer told from a larger one."""
        figures = np.column_stack([properties, confidences]).astype(np.float64)
        figures[:, SHORT_SIDE] = np.minimum(figures[:, SHORT_SIDE], cap)
        return cls(np.round(figures, DECIMALS), labels.astype(np.int64), sketches.astype(np.float32))

    @classmethod
    def of_reference(cls, known: Reference) -> Sample:
        return cls.of(known.properties, known.confidences, known.labels, known.sketches, known.max_short_side)

    @classmethod
    def of_log(cls, records: Sequence[Mapping[str, Any]], classes: Sequence[str], cap: int) -> Sample:
        """Of records of the request log (monitoring.request_log) that are `comparable`."""
        place = {name: number for number, name in enumerate(classes)}
        return cls.of(
            np.array([[record["properties"][name] for name in PROPERTIES] for record in records]).reshape(
                -1, len(PROPERTIES)
            ),
            np.array([record["confidence"] for record in records]),
            np.array([place[record["predicted"]] for record in records]),
            np.array([_unpacked(record["sketch"]) for record in records]).reshape(-1, DIRECTIONS),
            cap,
        )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, which: NDArray[Any]) -> Sample:
        return Sample(self.figures[which], self.labels[which], self.sketches[which])

    @classmethod
    def join(cls, first: Sample, second: Sample) -> Sample:
        return cls(
            np.concatenate([first.figures, second.figures]),
            np.concatenate([first.labels, second.labels]),
            np.concatenate([first.sketches, second.sketches]),
        )


def comparable(record: Mapping[str, Any], classes: Sequence[str]) -> bool:
    """Whether a record of the request log has all that `Sample.of_log` takes."""
    try:
        figures = [*(record["properties"][name] for name in PROPERTIES), record["confidence"]]
        whole = record["predicted"] in classes and len(_unpacked(record["sketch"])) == DIRECTIONS
        return whole and all(isinstance(figure, int | float) and math.isfinite(figure) for figure in figures)
    except (LookupError, TypeError, ValueError):
        return False


def _unpacked(sketch: str) -> NDArray[np.float16]:
    return np.frombuffer(base64.b64decode(sketch), "<f2")


@dataclass(frozen=True)
class Test:
    """One of TESTS by name: a distance (0: the same, 1: nothing in common), its chance without drift, the verdict."""

    name: str
    statistic: float
    p_value: float
    threshold: float

    @property
    def alarm(self) -> bool:
        return self.p_value <= self.threshold

    def as_dict(self) -> dict[str, Any]:
        return {
            "property": self.name,
            "statistic": self.statistic,
            "p_value": self.p_value,
            "threshold": self.threshold,
            "alarm": self.alarm,
        }


def compare(reference: Sample, window: Sample, false_alarms: float, permutations: int, seed: int) -> list[Test]:
    """The nine tests of `window` against `reference`, in the order of TESTS.

    Where both are drawn from the same source, the chance that any test alarms is `false_alarms` at most.
    """
    distances = _distances(Sample.join(reference, window), len(reference), permutations, np.random.default_rng(seed))
    chances = _chances(distances)
    threshold = _threshold(chances.min(axis=1), false_alarms)
    return [
        Test(name, float(distance), float(chance), threshold)
        for name, distance, chance in zip(TESTS, distances[0], chances[0], strict=True)
    ]


def _distances(both: Sample, first: int, permutations: int, random: np.random.Generator) -> Floats:
    """[1 + permutations, 9]: the distances of the first `first` pictures to the rest, then those of every deal."""
    measures = [_kolmogorov_smirnov(both.figures[:, column]) for column in range(len(FIGURES))]
    measures += [_discrepancy(both.sketches), _variation(both.labels)]
    rest = np.arange(len(both)) >= first
    parts = [_measured(rest[None], measures)]
    for start in range(0, permutations, DEALT):
        deals = np.tile(rest, (min(DEALT, permutations - start), 1))
        parts.append(_measured(random.permuted(deals, axis=1, out=deals), measures))
    return np.concatenate(parts)


def _measured(deals: Deals, measures: Sequence[Distance]) -> Floats:
    return np.asarray(np.round(np.column_stack([measure(deals) for measure in measures]), EXACT))


# Each of these takes the pooled values of N pictures and gives a function of deals, bool [P, N]: which pictures belong
# to the window. It returns the distances [P] of window and reference. Shares are compared in whole numbers: rounded
# sums depend on their order, and equal distances must be equal.


def _kolmogorov_smirnov(values: Floats) -> Distance:
    """The largest difference between the shares of pictures up to a value."""
    order = np.argsort(values, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(values[order]) > 0, True))  # the last of equal values

    def distance(deals: Deals) -> Floats:
        up_to = np.cumsum(deals[:, order], axis=1, dtype=np.int32)[:, ends]
        return np.asarray(_differences(up_to, ends + 1, deals).max(axis=1) / _unit(deals))

    return distance


def _variation(labels: NDArray[np.int64]) -> Distance:
    """Half the sum of the differences between the shares of the labels."""
    members = (labels[:, None] == np.unique(labels)).astype(np.int32)
    totals = members.sum(axis=0)
    return lambda deals: np.asarray(_differences(deals @ members, totals, deals).sum(axis=1) / (2 * _unit(deals)))


def _differences(counts: NDArray[np.int32], totals: NDArray[Any], deals: Deals) -> NDArray[np.int32]:
    """Between the shares of window and reference, times `_unit`; `counts` [P, k] of the `totals` [k] pictures are in
    the window."""
    scaled = counts * np.int32(deals.shape[1])
    scaled -= (totals * deals[0].sum()).astype(np.int32)
    return np.asarray(np.abs(scaled, out=scaled))


def _unit(deals: Deals) -> int:
    window = int(deals[0].sum())
    return window * int(deals.shape[1] - window)


def _discrepancy(sketches: NDArray[np.float32]) -> Distance:
    squares = np.square(sketches).sum(axis=1)
    squared = np.maximum(squares[:, None] + squares[None] - 2 * sketches @ sketches.T, 0)
    kernel = np.exp(-squared / max(float(np.median(squared)), np.finfo(np.float32).tiny))

    def distance(deals: Deals) -> Floats:
        window = int(deals[0].sum())
        weights = np.where(deals, np.float32(1 / window), np.float32(-1 / (deals.shape[1] - window)))
        found = ((weights @ kernel) * weights).sum(axis=1).astype(np.float64)
        return np.asarray(np.sqrt(np.maximum(np.round(found, EXACT), 0)))

    return distance


def _chances(distances: Floats) -> Floats:
    """The p-value of every distance among those of its column: the share of them that are as large."""
    ordered = np.sort(distances, axis=0)
    below = np.column_stack(
        [np.searchsorted(ordered[:, column], distances[:, column]) for column in range(distances.shape[1])]
    )
    return 1 - below / len(distances)


def _threshold(least: Floats, false_alarms: float) -> float:
    """The largest of the least p-values that at most a share `false_alarms` of them does not exceed; 0 if none is."""
    ordered = np.sort(least)
    kept = ordered[ordered < ordered[int(false_alarms * len(ordered))]]
    return float(kept[-1]) if len(kept) else 0.0
