import hashlib
from collections import Counter

import numpy as np

from data.split import SPLITS, held_back, own_split


def content(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def test_shares_are_kept() -> None:
    counts = Counter(own_split(content(number), validation=0.1, test=0.2) for number in range(20_000))
    assert abs(counts["test"] / 20_000 - 0.2) < 0.01
    assert abs(counts["validation"] / 20_000 - 0.1) < 0.01


def test_the_ends_of_the_range() -> None:
    assert [own_split(digit * 64, 0.1, 0.2) for digit in "03f"] == ["test", "train", "validation"]


def test_another_share_moves_only_what_it_must() -> None:
    numbers = [content(number) for number in range(2000)]
    before = {one: own_split(one, 0.1, 0.2) for one in numbers}
    after = {one: own_split(one, 0.1, 0.3) for one in numbers}
    moved = {(before[one], after[one]) for one in numbers if before[one] != after[one]}
    assert moved == {("train", "test")}


def held(splits: str, *pairs: tuple[int, int]) -> dict[int, int]:
    """`held_back` of splits written as n (train), v (validation) and e (test)."""
    names = {"n": "train", "v": "validation", "e": "test"}
    return held_back([names[letter] for letter in splits], np.array(pairs, dtype=np.intp).reshape(-1, 2))


def test_near_duplicates_in_one_split_stay() -> None:
    assert held("nnvvee", (0, 1), (2, 3), (4, 5)) == {}


def test_the_lower_side_is_held_back() -> None:
    assert held("ne", (0, 1)) == {0: 1}
    assert held("ev", (0, 1)) == {1: 0}
    assert held("vn", (0, 1)) == {1: 0}


def test_a_picture_that_is_held_back_holds_back_none() -> None:
    assert held("nve", (0, 1), (1, 2)) == {1: 2}  # train - validation - test: the train picture may stay
    assert held("nve", (0, 1), (1, 2), (0, 2)) == {0: 2, 1: 2}


def test_nothing_straddles_whatever_the_pairs() -> None:
    random = np.random.default_rng(3)
    for _ in range(50):
        splits = [SPLITS[index] for index in random.integers(0, 3, 40)]
        pairs = np.sort(random.integers(0, 40, (60, 2)), axis=1)
        out = held_back(splits, pairs)
        left = [(a, b) for a, b in pairs.tolist() if a not in out and b not in out]
        assert all(splits[a] == splits[b] for a, b in left)
        assert not any(splits[one] == "test" for one in out)
        assert all(other not in out and splits[other] != splits[one] for one, other in out.items())
