from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from training.evaluation.paired import Contingency, sure_gain
from training.evaluation.scores import Scores


def test_counts_who_is_right_where() -> None:
    a, b = np.array([True, True, True, False, False]), np.array([True, False, False, True, False])
    pair = Contingency.of(a, b)
    assert pair == Contingency(both_right=1, both_wrong=1, only_a=2, only_b=1)
    assert pair.difference == pytest.approx(0.2)


def test_mcnemar_is_the_exact_binomial() -> None:
    assert Contingency(80, 5, 10, 0).mcnemar() == pytest.approx(2 / 2**10)
    assert Contingency(80, 5, 5, 5).mcnemar() == 1.0
    assert Contingency(90, 10, 0, 0).mcnemar() == 1.0


@pytest.mark.parametrize("pair", [Contingency(300, 60, 25, 15), Contingency(30, 8, 0, 3), Contingency(9, 1, 0, 0)])
def test_the_exact_interval_is_what_very_many_resamples_give(pair: Contingency) -> None:
    each = [pair.both_right + pair.both_wrong, pair.only_a, pair.only_b]
    draws = np.random.default_rng(1).multinomial(pair.pictures, np.array(each) / pair.pictures, 400_000)
    differences = (draws[:, 1] - draws[:, 2]) / pair.pictures
    assert pair.difference_interval(0.95) == pytest.approx(
        np.quantile(differences, [0.025, 0.975]), abs=1 / pair.pictures
    )


def scores(losses: NDArray[np.float64]) -> Scores:
    right = np.exp(-losses)
    return Scores(("cat", "dog"), np.stack([right, 1 - right], axis=1).astype(np.float32), ("cat",) * len(losses))


def test_a_gain_is_sure_only_where_the_whole_interval_is_above_zero() -> None:
    random = np.random.default_rng(0)
    base = random.exponential(0.3, 500)
    better, noisy = scores(base * 0.8), scores(np.abs(base + random.normal(0, 0.3, 500)))
    assert sure_gain(better, scores(base), 0.95, 2000, 1) > 0.03
    assert sure_gain(noisy, scores(base), 0.95, 2000, 1) < 0
    assert sure_gain(scores(base), scores(base), 0.95, 2000, 1) == 0
