"""Each figure answers to what it is named for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from tests.drawing import drawing
from training.model.properties import PROPERTIES, measure

PICTURE = drawing(1, 32, 32)


def figures(image: Image.Image) -> dict[str, float]:
    return measure(np.asarray(image), *image.size)


def _grey(values: NDArray[np.int64]) -> NDArray[np.uint8]:
    return np.stack([values] * 3, axis=2).astype(np.uint8)


def test_names_and_order() -> None:
    assert tuple(figures(PICTURE)) == PROPERTIES


def test_a_flat_picture() -> None:
    found = measure(np.full((32, 32, 3), 100, np.uint8), 300, 200)
    assert found == pytest.approx(
        {"brightness": 100, "contrast": 0, "sharpness": 0, "saturation": 0, "short_side": 200, "aspect": 1.5}
    )


def test_extremes() -> None:
    fine = np.indices((32, 32)).sum(0) % 2 * 255
    assert measure(_grey(fine), 8, 16)["sharpness"] == pytest.approx(4 * 255)
    assert measure(_grey(fine.repeat(2, 0).repeat(2, 1)), 8, 16)["contrast"] == pytest.approx(127.5)
    red = measure(np.full((32, 32, 3), (255, 0, 0), np.uint8), 8, 16)
    assert (red["saturation"], red["short_side"], red["aspect"]) == (1, 8, 0.5)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("brightness", ImageEnhance.Brightness(PICTURE).enhance(0.6)),
        ("contrast", ImageEnhance.Contrast(PICTURE).enhance(0.6)),
        ("saturation", ImageEnhance.Color(PICTURE).enhance(0.6)),
        ("sharpness", PICTURE.filter(ImageFilter.GaussianBlur(3))),
    ],
)
def test_a_change_is_seen(name: str, changed: Image.Image) -> None:
    assert figures(changed)[name] < 0.9 * figures(PICTURE)[name]
