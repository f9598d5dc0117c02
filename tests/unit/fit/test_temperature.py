"""The temperature is found again, and few pictures never make certain."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from training.fit.temperature import fit_temperature


def test_temperature_recovers_the_one_that_was_applied() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (20_000, 3))
    labels = np.array([random.choice(3, p=row) for row in softmax(logits, axis=1)])
    assert fit_temperature(logits * 2.5, labels) == pytest.approx(2.5, rel=0.05)


def test_of_few_pictures_no_temperature_makes_certain() -> None:
    """Eleven pictures that are all told apart would be told apart at any temperature."""
    labels = np.arange(11) % 2
    logits = 3.0 * np.eye(2)[labels]
    sure = softmax(logits / fit_temperature(logits, labels), axis=1).max(1)
    assert sure == pytest.approx(12 / 13, abs=1e-6)
