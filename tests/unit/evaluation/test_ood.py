"""The pictures of other things: all there, all different, the same in every run, and named in their data card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from training.evaluation import ood
from training.model.preprocess import Preprocessing

pytestmark = pytest.mark.slow

FOLDER = Path(ood.__file__).parent


@pytest.fixture(scope="module")
def pictures() -> dict[str, NDArray[np.uint8]]:
    return ood.pictures(Preprocessing(size=64, resize=72))


def test_every_kind_is_there(pictures: dict[str, NDArray[np.uint8]]) -> None:
    assert {kind: found.shape for kind, found in pictures.items()} == {
        **dict.fromkeys(ood.DRAWN, (ood.PER_KIND, 64, 64, 3)),
        **{kind: (5 * len(names), 64, 64, 3) for kind, names in ood.PHOTOS.items()},
    }


def test_no_two_are_equal(pictures: dict[str, NDArray[np.uint8]]) -> None:
    every = np.concatenate(list(pictures.values()))
    assert len({picture.tobytes() for picture in every}) == len(every)


@pytest.mark.parametrize("kind", ood.DRAWN)
def test_a_drawn_picture_is_the_same_again(kind: str) -> None:
    first, second = (np.asarray(ood.DRAWN[kind](np.random.default_rng(3))) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_views_of_one_photograph_are_in_one_half() -> None:
    assert ood.halves("landscape", 15).tolist() == [True] * 5 + [False] * 5 + [True] * 5
    assert ood.halves("noise", 3).tolist() == [True, False, True]


def test_the_data_card_names_every_photograph() -> None:
    card = (FOLDER / "README.md").read_text()
    named = {Path(name).name for names in ood.PHOTOS.values() for name in names}
    assert {path.name for path in (FOLDER / "photos").iterdir()} <= named
    assert all(f"`{name}`" in card for name in named)
