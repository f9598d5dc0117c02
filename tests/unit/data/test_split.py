import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from data.pictures import Examined
from data.split import GoodPicture, class_splits, group_splits, own_split, place


def content(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def places(numbers: Sequence[int]) -> list[float]:
    return [place(content(number)) for number in numbers]


def test_shares_are_kept() -> None:
    counts = Counter(class_splits(places(range(20_000)), validation=0.1, test=0.2))
    assert abs(counts["test"] / 20_000 - 0.2) < 0.01
    assert abs(counts["validation"] / 20_000 - 0.1) < 0.01


def test_the_ends_of_the_range() -> None:
    assert [own_split(place(digit * 64), 0.1, 0.2) for digit in "03f"] == ["test", "train", "validation"]


def test_another_share_moves_only_what_it_must() -> None:
    before = class_splits(places(range(2000)), 0.1, 0.2)
    after = class_splits(places(range(2000)), 0.1, 0.3)
    assert {pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]} == {("train", "test")}


def test_another_seed_is_another_split() -> None:
    first, second = ([own_split(place(content(number), seed), 0.1, 0.2) for number in range(2000)] for seed in (1, 2))
    both = sum(pair == ("test", "test") for pair in zip(first, second, strict=True))
    assert abs(both / 2000 - 0.04) < 0.02


def test_adding_pictures_moves_none() -> None:
    before = class_splits(places(range(60)), 0.1, 0.2)
    assert class_splits(places(range(3000)), 0.1, 0.2)[:60] == before
    assert {"train", "validation", "test"} == set(before)


@pytest.mark.parametrize(
    ("count", "least"), [(3, (1, 1, 1)), (4, (2, 1, 1)), (5, (2, 1, 1)), (6, (2, 1, 1)), (20, (2, 1, 1))]
)
def test_every_split_has_a_picture_of_a_small_class(count: int, least: tuple[int, int, int]) -> None:
    random = np.random.default_rng(count)
    for _ in range(300):
        counts = Counter(class_splits(random.random(count).tolist(), 0.1, 0.2))
        assert all(counts[name] >= some for name, some in zip(("train", "validation", "test"), least, strict=True))


def test_a_small_class_gives_what_is_nearest() -> None:
    assert class_splits([0.5, 0.6, 0.4, 0.3, 0.7], 0.1, 0.2) == ["train", "train", "train", "test", "validation"]
    assert class_splits([0.01, 0.02, 0.03, 0.04, 0.05], 0.1, 0.2) == ["test", "test", "train", "train", "validation"]
    assert class_splits([0.5, 0.6, 0.4], 0.1, 0.0) == ["train", "validation", "train"]
    assert class_splits([0.5, 0.6], 0.1, 0.2) == ["test", "validation"]
    assert class_splits([0.5], 0.1, 0.2) == ["test"]


def test_a_split_that_is_given_is_not_drawn() -> None:
    assert class_splits([0.01, 0.99, 0.5], 0.0, 0.2) == ["test", "train", "train"]
    assert class_splits([0.01, 0.99, 0.5], 0.1, 0.0) == ["train", "validation", "train"]
    assert class_splits([0.01, 0.99], 0.0, 0.0) == ["train", "train"]


def test_a_small_class_that_grows_never_tests_on_what_was_trained_on() -> None:
    random = np.random.default_rng(5)
    for _ in range(300):
        where = random.random(40).tolist()
        small, grown = class_splits(where[:8], 0.1, 0.2), class_splits(where, 0.1, 0.2)
        moved = {pair for pair in zip(small, grown, strict=False) if pair[0] != pair[1]}
        natural = Counter(own_split(one, 0.1, 0.2) for one in where[:8])
        assert natural["train"] < 2 or moved <= {("test", "train"), ("validation", "train")}


def test_each_class_is_split_by_itself() -> None:
    pictures = [
        GoodPicture(Examined("", Path(), content(number), "", 0, 0, 0, b"", 0), "ab"[number % 2], "")
        for number in range(12)
    ]
    splits = group_splits(pictures, range(0, 12), 0.1, 0.2, seed=3)
    for label in (0, 1):
        numbers = range(label, 12, 2)
        alone = class_splits([place(content(number), 3) for number in numbers], 0.1, 0.2)
        assert [splits[number] for number in numbers] == alone
