"""The temperature of a classifier's logits [N, classes], from pictures that it has not learned from."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_softmax, softmax

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

COLDEST, HOTTEST = -4.0, 4.0  # logarithms of a temperature


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """The temperature that minimises log-loss on held-out logits (Guo et al. 2017, On Calibration of Modern NNs).

    N pictures cannot show that fewer than 1 in N + 2 go wrong (Laplace's rule of succession), so the mean confidence is
    at most 1 - 1 / (N + 2): of few that are all told apart the best temperature would be 0, every confidence 1.
    """

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / math.exp(log_temperature), axis=1)
        return float(-scaled[np.arange(len(labels)), labels].mean())

    def excess(log_temperature: float) -> float:
        confidence = softmax(logits / math.exp(log_temperature), axis=1).max(1).mean()
        return float(confidence - 1 + 1 / (len(labels) + 2))

    best = float(minimize_scalar(loss, bounds=(COLDEST, HOTTEST), method="bounded").x)
    return math.exp(brentq(excess, best, HOTTEST) if excess(best) > 0 > excess(HOTTEST) else best)
