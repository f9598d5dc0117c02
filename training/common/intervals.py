"""Confidence intervals of a proportion, by the standard library alone: the service uses them too."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson(right: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of `right` of `count` (Wilson 1927, JASA 22:209)."""
    return _wilson(right, count, 0)


def wilson_corrected(right: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval with continuity correction (Newcombe 1998, Statistics in Medicine 17:857, method 4).

    For very small counts: without the correction the interval of 0 of 1 ends at 0.79.
    """
    return _wilson(right, count, 1)


def _wilson(right: int, count: int, correction: int) -> tuple[float, float]:
    z = NormalDist().inv_cdf(0.975)
    share = right / count

    def end(side: int) -> float:
        shift = correction * (side * 2 - 1 / count)
        root = math.sqrt(z * z + shift + 4 * share * (count - right - correction * side))
        return (2 * right + z * z + side * (correction + z * root)) / (2 * (count + z * z))

    return 0.0 if right == 0 else max(0.0, end(-1)), 1.0 if right == count else min(1.0, end(1))
