from __future__ import annotations

from pathlib import Path

import numpy as np

from data.manifest import Picture
from training.evaluation.slices import described, slices


def test_every_picture_is_in_one_slice_of_each_kind() -> None:
    sizes = [(32, 32), (400, 300), (100, 200), (640, 100)]
    pictures = [Picture(Path("p.png"), "cat", "test", "sha", width, height, "") for width, height in sizes]
    images = np.stack([np.full((8, 8, 3), value, np.uint8) for value in (10, 100, 200, 255)])
    found = {name: mask.tolist() for name, mask in slices(pictures, images).items()}
    assert found["brightness dark"] == [True, False, False, False]
    assert found["brightness bright"] == [False, False, True, True]
    assert found["size small"] == [True, False, False, False]
    assert found["size large"] == [False, True, False, False]
    assert found["aspect tall"] == [False, False, True, False]
    assert found["aspect wide"] == [False, True, False, True]
    for kind in ("brightness", "size", "aspect"):
        assert np.sum([mask for name, mask in found.items() if name.startswith(kind)], axis=0).tolist() == [1] * 4


def test_every_value_of_a_column_of_ones_own_is_a_slice() -> None:
    values = [("north", "A"), ("south", ""), ("north", "")]
    pictures = [
        Picture(Path("p.png"), "cat", "test", "sha", 64, 64, "", columns=(("site", site), ("camera", camera)))
        for site, camera in values
    ]
    found = slices(pictures, np.zeros((3, 8, 8, 3), np.uint8))
    own = {name: mask.tolist() for name, mask in found.items() if name.split()[0] in ("site", "camera")}
    assert own == {
        "site north": [True, False, True],
        "site south": [False, True, False],
        "camera A": [True, False, False],
    }
    figures = described(found, np.array([True, True, False]))
    assert (figures["site north"]["pictures"], figures["site north"]["value"]) == (2, 0.5)
    assert "brightness bright" not in figures
