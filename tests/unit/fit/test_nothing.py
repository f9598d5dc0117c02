"""Pictures of nothing: the same each time, of every grain, at any size."""

from __future__ import annotations

import numpy as np
import pytest

from training.fit import nothing


@pytest.mark.parametrize("side", [16, 50])
def test_they_are_the_same_each_time_and_unlike_each_other(side: int) -> None:
    found = nothing.pictures(side)
    assert found.shape == (nothing.NOISE + nothing.FLAT, side, side, 3)
    assert (found == nothing.pictures(side)).all()
    assert len({picture.tobytes() for picture in found}) == len(found)


def test_the_last_ones_are_flat_and_the_others_are_not() -> None:
    spread = nothing.pictures(64).std((1, 2)).max(1)
    assert (spread[-nothing.FLAT :] == 0).all()
    assert (spread[: nothing.NOISE] > 1).all()


def test_large_grain_is_in_large_patches() -> None:
    fine, coarse = nothing.pictures(64)[[0, 5]]
    steps = [np.abs(np.diff(picture.astype(int), axis=0)).any((1, 2)).mean() for picture in (fine, coarse)]
    assert steps == [1.0, 1 / 63]
