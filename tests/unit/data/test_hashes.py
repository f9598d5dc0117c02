import numpy as np
import pytest

from data.hashes import HashIndex


@pytest.mark.parametrize("distance", [0, 3, 6, 7])
def test_finds_what_is_close_and_nothing_else(distance: int) -> None:
    random = np.random.default_rng(distance)
    hashes = random.integers(0, 2**63, 500, dtype=np.uint64)
    flips = [sum(1 << int(bit) for bit in random.permutation(64)[: number % 10]) for number in range(500)]
    asked = hashes[::-1] ^ np.array(flips, dtype=np.uint64)
    expected = np.argwhere(np.bitwise_count(asked[:, None] ^ hashes[None]) <= distance)
    found = HashIndex(hashes, distance).pairs(asked, most=10**9)
    assert found is not None
    assert len(found) == 50 * (distance + 1)
    assert found.tolist() == expected.tolist()


def test_gives_up_where_all_look_alike() -> None:
    index = HashIndex(np.zeros(100, dtype=np.uint64), 6)
    assert index.pairs(np.zeros(10, dtype=np.uint64), most=999) is None
    found = index.pairs(np.zeros(10, dtype=np.uint64), most=1000)
    assert found is not None
    assert len(found) == 1000


def test_random_hashes_are_hardly_compared() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**63, 20_000, dtype=np.uint64)
    assert HashIndex(hashes, 6).pairs(hashes[:1000] ^ np.uint64(1 << 40), most=1000 * 20_000 // 900) is not None


def test_an_empty_index() -> None:
    found = HashIndex(np.empty(0, dtype=np.uint64), 6).pairs(np.zeros(3, dtype=np.uint64), most=10)
    assert found is not None
    assert found.shape == (0, 2)
