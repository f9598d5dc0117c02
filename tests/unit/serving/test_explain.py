"""The heat map."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from training.serving.api.explain import drawn, heat


def test_heat_runs_from_0_to_1() -> None:
    found = heat(np.array([[-2.0, 0.0], [1.0, 2.0]], np.float32))
    assert found.tolist() == [[0, 0.5], [0.75, 1]]


def test_a_flat_map_has_no_heat() -> None:
    assert not heat(np.full((7, 7), 3.0, np.float32)).any()


def test_overlay_warms_the_hot_corner_and_leaves_the_cold_one() -> None:
    pixels = np.full((64, 64, 3), 128, np.uint8)
    warmth = np.zeros((4, 4), np.float32)
    warmth[0, 0] = 1
    found = np.asarray(Image.open(io.BytesIO(drawn(pixels, warmth))))
    assert found.shape == pixels.shape
    red, green, blue = found[2, 2].astype(int)
    assert red > green + 80
    assert red > blue + 80
    assert (found[-8:, -8:] == 128).all()


def test_without_a_map_the_picture_is_what_the_network_sees() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    assert (np.asarray(Image.open(io.BytesIO(drawn(pixels, None)))) == pixels).all()
