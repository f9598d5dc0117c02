import io
from collections.abc import Sequence

import imagehash
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from data import duplicates
from data.duplicates import Looks, difference, groups, normalised, representatives, same_content
from data.pictures import colours, perceptual_hash, worn
from tests.drawing import drawing, encoded


def looks(images: Sequence[Image.Image]) -> Looks:
    """As `examine` and `prepare` describe pictures."""
    hashes = np.array([perceptual_hash(image) for image in images], dtype=np.uint64)
    seen = [colours(image) for image in images]
    worn_out = [colours(worn(image)) for image in images]
    apart = [difference(normalised(one), normalised(other)) for one, other in zip(seen, worn_out, strict=True)]
    return Looks(hashes, np.concatenate(seen), np.concatenate(apart).reshape(-1))


def found(images: Sequence[Image.Image], distance: int = 6, given: int = 0) -> list[list[int]]:
    return groups(representatives(looks(images), distance, given))


def again(image: Image.Image, kind: str, **options: int) -> Image.Image:
    return Image.open(io.BytesIO(encoded(image, kind, **options))).convert("RGB")


def dots(*hashes: int, tolerance: int = 0) -> Looks:
    """Pictures that differ in their hashes alone."""
    count = len(hashes)
    return Looks(np.array(hashes, np.uint64), np.zeros((count, 3), np.uint8), np.full(count, tolerance, np.int64))


def test_perceptual_hash_is_that_of_the_library() -> None:
    expected = imagehash.phash(drawing(1)).hash.flatten()
    assert [int(bit) for bit in f"{perceptual_hash(drawing(1)):064b}"] == expected.astype(int).tolist()


def test_finds_copies_that_were_scaled_and_encoded_again() -> None:
    originals = [drawing(seed, 120, 90) for seed in range(30)]
    copies = [again(image.resize((80, 60)), "JPEG", quality=60) for image in originals]
    assert found(originals + copies) == [[number, number + 30] for number in range(30)]


def test_finds_copies_of_another_exposure() -> None:
    originals = [drawing(seed, 120, 90) for seed in range(10)]
    assert found(originals + [ImageEnhance.Contrast(image).enhance(0.8) for image in originals]) == [
        [number, number + 10] for number in range(10)
    ]


def sign(moved: int) -> Image.Image:
    """A bright shape on black, as of a set in which all pictures look alike; `moved` shifts a stroke of it."""
    image = Image.new("RGB", (64, 64))
    image.paste((250, 250, 250), (16, 8, 24, 56))
    image.paste((250, 250, 250), (24, 24 + moved, 48, 30 + moved))
    return image


def test_what_only_looks_alike_is_no_near_duplicate() -> None:
    hashes = [perceptual_hash(sign(moved)) for moved in (0, 4)]
    assert (hashes[0] ^ hashes[1]).bit_count() <= 16
    assert found([sign(0), sign(4)], distance=16) == []
    assert found([sign(0), again(sign(0), "JPEG", quality=60)], distance=16) == [[0, 1]]


def test_plain_pictures_of_different_colours_are_not_near() -> None:
    plain = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue", "green", "white", "black", "#f80000")]
    assert {perceptual_hash(image) | 1 << 63 for image in plain} == {1 << 63}
    assert found(plain) == [[0, 5]]


def test_distance_is_counted_in_bits() -> None:
    hashes = dots(0, 0b1111, 0b111111, 2**63)
    assert groups(representatives(hashes, 0)) == []
    assert groups(representatives(hashes, 1)) == [[0, 3]]
    assert groups(representatives(hashes, 4)) == [[0, 1, 3]]


def test_a_chain_is_no_group() -> None:
    assert representatives(dots(0, 0b1, 0b11, 0b111, 0b1111), 1).tolist() == [0, 0, 2, 2, 4]


def test_given_pictures_represent_themselves() -> None:
    assert representatives(dots(0, 0, 0, 7), 0, given=2).tolist() == [0, 1, 0, 3]


def test_the_larger_tolerance_counts() -> None:
    seen = np.array([[0, 0, 30], [0, 30, 0], [30, 0, 0]], np.uint8)
    apart = int(difference(normalised(seen[:1]), normalised(seen[1:2]))[0, 0])
    same = np.zeros(3, np.uint64)
    assert representatives(Looks(same, seen, np.array([0, apart - 1, 0])), 6).tolist() == [0, 1, 2]
    assert representatives(Looks(same, seen, np.array([0, apart, 0])), 6).tolist() == [0, 0, 2]


@pytest.mark.parametrize("count", [0, 1])
def test_few_pictures_have_no_groups(count: int) -> None:
    assert groups(representatives(dots(*range(count)), 6)) == []


def one_by_one(described: Looks, distance: int) -> list[int]:
    """The same without blocks."""
    leader: list[int] = []
    for row in range(len(described.hashes)):
        earlier = (one for one in range(row) if leader[one] == one and is_near(described, one, row, distance))
        leader.append(next(earlier, row))
    return leader


def is_near(described: Looks, one: int, row: int, distance: int) -> bool:
    two = described.colours[[one, row]]
    shapes = normalised(two)
    return bool(
        (int(described.hashes[one]) ^ int(described.hashes[row])).bit_count() <= distance
        and ((shapes[0].astype(float) - shapes[1]) ** 2).sum() <= described.tolerance[[one, row]].max()
        and np.abs(two[0].astype(float) - two[1]).mean() <= 32
    )


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(2)
    kinds = random.integers(0, 256, (12, 48))
    seen = np.clip(kinds[random.integers(0, 12, 120)] + random.integers(-40, 41, (120, 48)), 0, 255).astype(np.uint8)
    described = Looks(random.integers(0, 8, 120).astype(np.uint64), seen, random.integers(0, 250_000, 120))
    expected = one_by_one(described, 2)
    assert 20 < len(set(expected)) < 100
    for sizes in ((1 << 22, 1024, 4096, 4096), (256, 7, 5, 4096), (1, 1, 1, 1), (1 << 22, 9, 5, 3), (40, 9, 5, 3)):
        for name, value in zip(("BLOCK", "ROWS", "PIECE", "FRESH"), sizes, strict=True):
            monkeypatch.setattr(duplicates, name, value)
        assert representatives(described, 2).tolist() == expected


@pytest.mark.slow
@pytest.mark.timeout(60)  # one by one the pairs would take many minutes
def test_finds_all_among_25_000() -> None:
    hashes = np.random.default_rng(1).integers(0, 2**63, 25_000, dtype=np.uint64)
    planted = [[number, 24_999 - number] for number in range(0, 12_000, 40)]
    for first, second in planted:
        hashes[second] = hashes[first] ^ np.uint64(0b11)
    described = Looks(hashes, np.zeros((25_000, 1), np.uint8), np.zeros(25_000, np.int64))
    assert sorted(groups(representatives(described, 2))) == planted


def test_groups_leave_single_pictures_out() -> None:
    leader: NDArray[np.intp] = np.array([0, 1, 1, 0, 4, 0])
    assert groups(leader) == [[0, 3, 5], [1, 2]]


def test_same_content_keeps_the_order() -> None:
    assert same_content(["b", "a", "b", "c"]) == [[0, 2], [1], [3]]
