import io

import imagehash
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data.duplicates import groups, near_pairs, same_content
from data.pictures import colours, perceptual_hash
from tests.drawing import drawing, encoded


def described(images: list[Image.Image]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    looks = np.array([perceptual_hash(image) for image in images], dtype=np.uint64)
    return looks, np.frombuffer(b"".join(map(colours, images)), dtype=np.uint8).reshape(len(images), -1)


def pairs_of(images: list[Image.Image], distance: int = 6) -> list[list[int]]:
    found: list[list[int]] = near_pairs(*described(images), distance).tolist()
    return found


def test_perceptual_hash_is_that_of_the_library() -> None:
    expected = imagehash.phash(drawing(1)).hash.flatten()
    assert [int(bit) for bit in f"{perceptual_hash(drawing(1)):064b}"] == expected.astype(int).tolist()


def test_finds_copies_that_were_scaled_and_encoded_again() -> None:
    originals = [drawing(seed, 120, 90) for seed in range(30)]
    copies = [
        Image.open(io.BytesIO(encoded(image.resize((80, 60)), "JPEG", quality=60))).convert("RGB")
        for image in originals
    ]
    assert pairs_of(originals + copies) == [[number, number + 30] for number in range(30)]


def test_plain_pictures_of_different_colours_are_not_near() -> None:
    plain = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue", "green", "white", "#f80000")]
    assert len({perceptual_hash(image) for image in plain}) == 1
    assert pairs_of(plain) == [[0, 4]]


def test_distance_is_counted_in_bits() -> None:
    looks = np.array([0, 0b1111, 0b111111, 2**63], dtype=np.uint64)
    same = np.zeros((4, 3), dtype=np.uint8)
    assert near_pairs(looks, same, 0).tolist() == []
    assert near_pairs(looks, same, 1).tolist() == [[0, 3]]
    assert near_pairs(looks, same, 4).tolist() == [[0, 1], [0, 3], [1, 2]]


@pytest.mark.parametrize("count", [0, 1])
def test_few_pictures_have_no_pairs(count: int) -> None:
    assert near_pairs(np.zeros(count, np.uint64), np.zeros((count, 3), np.uint8), 6).shape == (0, 2)


@pytest.mark.slow
@pytest.mark.timeout(60)  # one by one the pairs would take many minutes
def test_finds_all_among_25_000() -> None:
    looks = np.random.default_rng(1).integers(0, 2**63, 25_000, dtype=np.uint64)
    planted = [(number, 24_999 - number) for number in range(0, 12_000, 40)]
    for first, second in planted:
        looks[second] = looks[first] ^ np.uint64(0b11)
    found = near_pairs(looks, np.zeros((25_000, 1), np.uint8), 2)
    assert sorted(map(tuple, found.tolist())) == planted


def test_groups_hang_together() -> None:
    assert groups(np.array([[0, 3], [3, 5], [1, 2]]), 6) == [[0, 3, 5], [1, 2]]
    assert groups(np.empty((0, 2), dtype=np.intp), 6) == []


def test_same_content_keeps_the_order() -> None:
    assert same_content(["b", "a", "b", "c"]) == [[0, 2], [1], [3]]
