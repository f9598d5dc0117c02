"""The measure of behaviour, with functions in place of a model whose behaviour is known."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.drawing import drawing, encoded
from training import params
from training.evaluation import behaviour
from training.model.preprocess import Preprocessing, load, shrink

HOW = Preprocessing(size=48, resize=48)
PICTURES = [encoded(drawing(seed, 64, 64)) for seed in range(12)]


def two(first: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([first, 1 - first], axis=1)


def contrast(images: NDArray[np.uint8], _: str) -> NDArray[np.float64]:
    """Surer the more the pixels differ from their neighbours."""
    return two(0.5 + np.abs(np.diff(images.astype(float), axis=2)).mean((1, 2, 3)) / 510)


def left(images: NDArray[np.uint8], _: str) -> NDArray[np.float64]:
    """Which half of the picture is brighter."""
    halves = images[:, :, :24].mean((1, 2, 3)) - images[:, :, 24:].mean((1, 2, 3))
    return two(1 / (1 + np.exp(-halves)))


def test_what_does_not_matter_to_a_model_leaves_its_answers() -> None:
    found = behaviour.measure(lambda images, _: two(np.full(len(images), 0.7)), PICTURES, HOW)
    assert found["pictures"] == 12
    assert set(found["invariance"]) == set(behaviour.INVARIANT)
    for change in found["invariance"].values():
        assert change["same_answer"]["value"] == 1
        assert change["same_answer"]["interval"][0] < 1
        assert change["mean_change"] == 0


def test_a_model_that_knows_left_from_right_changes_its_mind_in_the_mirror() -> None:
    found = behaviour.measure(left, PICTURES, HOW)["invariance"]
    assert found["mirrored"]["same_answer"]["value"] == 0
    assert found["exif_rotated"]["same_answer"]["value"] == 1
    assert found["encoded_again"]["same_answer"]["value"] == 1


def test_the_direction_of_a_change_is_signed() -> None:
    found = behaviour.measure(contrast, PICTURES, HOW)["direction"]
    assert found["blurred"]["change"]["interval"][1] < 0
    assert found["noisy"]["change"]["interval"][0] > 0
    difference = found["noisy"]["confidence_after"] - found["noisy"]["confidence_before"]
    assert found["noisy"]["change"]["value"] == pytest.approx(difference)


def test_a_lying_picture_is_seen_upright() -> None:
    picture = drawing(1, 64, 64)
    lying = behaviour.INVARIANT["exif_rotated"](picture)
    assert lying.getexif()[0x0112] == 6
    seen, upright = shrink(lying, HOW).astype(float), load(encoded(picture), HOW).astype(float)
    assert np.abs(seen - upright).mean() < 3


@pytest.mark.parametrize("name", [*behaviour.INVARIANT, *behaviour.LESS_SURE])
def test_a_change_leaves_the_picture_it_was_given(name: str) -> None:
    picture = drawing(2, 64, 48)
    before = picture.tobytes()
    changed = (behaviour.INVARIANT | behaviour.LESS_SURE)[name](picture)
    assert isinstance(changed, Image.Image)
    assert picture.tobytes() == before


def test_named_pictures_are_counted_and_the_wrong_ones_named() -> None:
    found = behaviour.minimum(["cat/1", "cat/2", "dog/1"], np.array([True, False, True]), {"cat/1", "cat/2", "dog/9"})
    assert found == {"pictures": 2, "right": 1, "wrong": ["cat/2"]}
    assert behaviour.minimum(["a"], np.array([True]), set()) == {"pictures": 0, "right": 0, "wrong": []}


def test_the_named_pictures_of_the_sample_exist() -> None:
    import zipfile

    from data.sources.places import SAMPLE

    with zipfile.ZipFile(SAMPLE) as sample:
        members = set(sample.namelist())
    sample_names = {name for name in behaviour.named() if not name.startswith("test/")}
    assert len(sample_names) == 24
    assert sample_names <= members


def test_a_mirrored_picture_must_keep_its_answer_where_mirrored_ones_were_learned_from() -> None:
    assert behaviour.harmless(None, None) == behaviour.harmless(None, ("plain", "mirrored")) == [*behaviour.INVARIANT]
    assert behaviour.harmless(None, ("plain",)) == [name for name in behaviour.INVARIANT if name != "mirrored"]
    assert behaviour.harmless(["cropped"], ("plain", "mirrored")) == ["cropped"]


def test_params_name_the_changes_that_there_are() -> None:
    assert set(get_args(params.Harmless)) == set(behaviour.INVARIANT)
