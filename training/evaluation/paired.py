"""Two models on the same pictures: is the difference more than chance?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from training.evaluation.scores import Scores

CHUNK = 2_000_000  # random indices drawn at once: keeps memory flat


@dataclass(frozen=True)
class Contingency:
    """How often two models A and B are right on the same pictures."""

    both_right: int
    both_wrong: int
    only_a: int
    only_b: int

    @classmethod
    def of(cls, a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Contingency:
        return cls(int((a & b).sum()), int((~a & ~b).sum()), int((a & ~b).sum()), int((~a & b).sum()))

    @property
    def pictures(self) -> int:
        return self.both_right + self.both_wrong + self.only_a + self.only_b

    @property
    def difference(self) -> float:
        """Accuracy of A less that of B."""
        return (self.only_a - self.only_b) / self.pictures

    def mcnemar(self) -> float:
        """Two-sided p of McNemar's exact test: the chance of so uneven a split of disagreements, were both equal."""
        discordant = self.only_a + self.only_b
        return float(binomtest(self.only_a, discordant).pvalue) if discordant else 1.0

    def difference_interval(self, confidence: float) -> tuple[float, float]:
        """The percentile interval of the bootstrapped accuracy difference, exactly: what infinitely many resamples
        would give. A resample is a sum of N draws from -1, 0, +1, so its distribution is a power of theirs (by FFT)."""
        n = self.pictures
        step = np.zeros(2 * n + 1)
        step[[0, 1, -1]] = (self.both_right + self.both_wrong) / n, self.only_a / n, self.only_b / n
        chances = np.fft.irfft(np.fft.rfft(step) ** n, 2 * n + 1)
        sums = np.cumsum(np.clip(np.roll(chances, n), 0, None))
        tail = (1 - confidence) / 2
        low, high = np.searchsorted(sums / sums[-1], [tail, 1 - tail])
        return (int(low) - n) / n, (int(high) - n) / n


def sure_gain(a: Scores, b: Scores, confidence: float, samples: int, seed: int) -> float:
    """The log-loss by which A is surely better than B: lower end of the paired bootstrap interval of the mean gain.

    The error of the resampling itself (three standard errors of the quantile's rank) is counted against A, so that
    neither luck with the pictures nor luck with the seed makes a gain.
    """
    gains = b.losses - a.losses
    random = np.random.default_rng(seed)
    rows = max(1, CHUNK // len(gains))
    means = np.concatenate(
        [
            gains[random.integers(0, len(gains), (min(rows, samples - start), len(gains)))].mean(axis=1)
            for start in range(0, samples, rows)
        ]
    )
    tail = (1 - confidence) / 2
    rank = samples * tail - 3 * math.sqrt(samples * tail * (1 - tail))
    return float(np.sort(means)[max(0, math.floor(rank))])
