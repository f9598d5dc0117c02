from __future__ import annotations

import pytest
from scipy.stats import binomtest

from training.common.intervals import wilson, wilson_corrected


@pytest.mark.parametrize("count", [1, 2, 3, 10, 50, 1000])
def test_the_intervals_are_those_of_scipy(count: int) -> None:
    for right in sorted({0, 1, count // 3, count // 2, count - 1, count}):
        for interval, method in ((wilson, "wilson"), (wilson_corrected, "wilsoncc")):
            expected = binomtest(right, count).proportion_ci(method=method)
            assert interval(right, count) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert wilson_corrected(0, count)[0] == wilson(0, count)[0] == 0.0
    assert wilson_corrected(count, count)[1] == wilson(count, count)[1] == 1.0


def test_one_wrong_answer_says_little() -> None:
    assert wilson_corrected(0, 1)[1] > 0.94
