"""Pictures that are there twice: by equal pixels, or by looking alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

BLOCK = 1 << 22  # pairs compared at once
MAX_COLOUR_DIFFERENCE = 32.0  # of 255; unrelated pictures differ less in one of a hundred pairs


def near_pairs(looks: NDArray[np.uint64], colours: NDArray[np.uint8], distance: int) -> NDArray[np.intp]:
    """Index pairs [P, 2], first < second, of pictures that look alike.

    `looks` [N] are 64-bit perceptual hashes, compared by Hamming distance, every one with every other; `colours`
    [N, C] are tiny pictures whose mean difference must be small too, because a perceptual hash knows no colour and
    pictures of one plain colour all have the same.
    """
    rows = max(1, BLOCK // max(1, len(looks)))
    found = [np.empty((0, 2), dtype=np.intp)]
    for start in range(0, len(looks), rows):
        near = np.bitwise_count(looks[start : start + rows, None] ^ looks[None, start:]) <= distance
        pairs = np.argwhere(np.triu(near, 1)) + start
        found.append(pairs[_colour_difference(colours, pairs) <= MAX_COLOUR_DIFFERENCE])
    return np.concatenate(found)


def _colour_difference(colours: NDArray[np.uint8], pairs: NDArray[np.intp]) -> NDArray[np.float64]:
    differences = [
        np.abs(colours[piece[:, 0]].astype(np.int16) - colours[piece[:, 1]]).mean(axis=1)
        for piece in np.array_split(pairs, max(1, len(pairs) // 4096))
    ]
    return np.concatenate(differences)


def groups(pairs: NDArray[np.intp], count: int) -> list[list[int]]:
    """Indices that hang together through `pairs`, each group sorted; pictures without a near duplicate are left out."""
    links = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, labels = connected_components(links, directed=False)
    members: dict[int, list[int]] = {}
    for index in np.unique(pairs).tolist():
        members.setdefault(int(labels[index]), []).append(index)
    return list(members.values())


def same_content(contents: Sequence[str]) -> list[list[int]]:
    """Indices of equal content, in order of their first member; a content that is there once is a group of one."""
    members: dict[str, list[int]] = {}
    for index, content in enumerate(contents):
        members.setdefault(content, []).append(index)
    return list(members.values())
