"""Which of many hashes of 64 bits differ in few bits from given ones, without a look at every pair.

Two hashes that differ in at most `distance` bits differ in at most a quarter of these in one of their four words of 16
bits (pigeonhole). So each word is looked up in a table, and so is every word that differs from it in that many bits:
of random hashes about one in a thousand is compared where `distance` is 6.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

WORDS, BITS = 4, 16
Pairs = NDArray[np.intp]


def close(first: NDArray[np.uint64], second: NDArray[np.uint64], distance: int) -> NDArray[np.bool_]:
    """Whether hashes differ in at most `distance` bits, by NumPy's rules for shapes."""
    return np.asarray(np.bitwise_count(first ^ second) <= distance)


class HashIndex:
    """The places of `hashes` [M], by their words."""

    def __init__(self, hashes: NDArray[np.uint64], distance: int) -> None:
        self.hashes = hashes
        self.distance = distance
        self.changes = _changes(distance // WORDS)
        self.orders, self.starts = [], []
        for word in _words(hashes):
            order = np.argsort(word, kind="stable")
            self.orders.append(order)
            self.starts.append(np.searchsorted(word[order], np.arange((1 << BITS) + 1)))

    def __len__(self) -> int:
        return len(self.hashes)

    def pairs(self, asked: NDArray[np.uint64], most: int) -> Pairs | None:
        """Pairs [P, 2] of places in `asked` [N] and in the index whose hashes are close, in order; None when more than
        `most` of one word would have to be compared, because all look alike."""
        found = []
        for word, order, starts in zip(_words(asked), self.orders, self.starts, strict=True):
            keys = (word[:, None] ^ self.changes[None]).ravel()
            counts = starts[keys + 1] - starts[keys]
            if (total := int(counts.sum())) > most:
                return None
            within = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
            rows = np.repeat(np.arange(len(keys)) // len(self.changes), counts)
            places = order[np.repeat(starts[keys], counts) + within]
            near = close(asked[rows], self.hashes[places], self.distance)
            found.append(rows[near] * len(self) + places[near])
        both = np.unique(np.concatenate(found))
        return np.stack(np.divmod(both, max(1, len(self))), axis=1)


def _words(hashes: NDArray[np.uint64]) -> list[NDArray[np.intp]]:
    return [(hashes >> np.uint64(BITS * place) & np.uint64(0xFFFF)).astype(np.intp) for place in range(WORDS)]


def _changes(bits: int) -> NDArray[np.intp]:
    """All numbers of 16 bits of which at most `bits` are set."""
    chosen = (some for count in range(bits + 1) for some in combinations(range(BITS), count))
    return np.array([sum(1 << bit for bit in some) for some in chosen], dtype=np.intp)
