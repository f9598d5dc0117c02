"""Pictures that are there twice: by equal pixels, or as a changed copy of the same picture.

A near duplicate is proven twice. A perceptual hash finds candidates; hands or digits that only look alike have like
hashes too, so their thumbnails are compared: two pictures are near duplicates if they differ no more than one of them
differs from a copy of itself that was cropped, scaled and encoded again (data.pictures.worn). So no threshold was set
on some data set; every picture brings its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.hashes import HashIndex, close

BLOCK = 1 << 22  # pairs of hashes compared at once
ROWS = 1024  # pictures compared at once, at most
FRESH = 4096  # representatives that are compared one by one, at most: beyond, all go into an index
MOST_INDEXED = 7  # bits that hashes may differ in where an index pays
PIECE = 4096  # thumbnails, or pairs of them, compared at once
MAX_COLOUR_DIFFERENCE = 32.0  # of 255; normalised, a white page is as a black one
DEVIATION = 128.0  # of a normalised thumbnail: as fine as float32 can multiply thumbnails of 16 x 16 x 3 without error

Normalised = NDArray[np.float32]


@dataclass(frozen=True)
class Looks:
    """What near duplicates are found by: `hashes` [N], perceptual hashes of 64 bits; `colours` uint8 [N, C], thumbnails
    of at most 768 values; `tolerance` [N], the `difference` of each picture from its own worn copy."""

    hashes: NDArray[np.uint64]
    colours: NDArray[np.uint8]
    tolerance: NDArray[np.int64]


def normalised(colours: NDArray[np.uint8]) -> Normalised:
    """Thumbnails [N, C] with mean 0 and deviation `DEVIATION`, whatever their exposure: whole numbers, float32."""
    centred = colours - colours.mean(axis=1, keepdims=True)
    scale = DEVIATION / np.maximum(centred.std(axis=1, keepdims=True), 1.0)
    rounded: Normalised = np.rint(centred * scale).astype(np.float32)
    return rounded


def difference(first: Normalised, second: Normalised) -> NDArray[np.int64]:
    """Squared distances [N, M] between two sets of normalised thumbnails [N, C] and [M, C].

    Exact, and so the same on every machine: no sum in the product reaches 2**24 (Cauchy and Schwarz).
    """
    squares = [np.square(one.astype(np.int64)).sum(axis=1) for one in (first, second)]
    apart: NDArray[np.int64] = squares[0][:, None] + squares[1][None] - 2 * (first @ second.T).astype(np.int64)
    return apart


def representatives(looks: Looks, distance: int, given: int = 0) -> NDArray[np.intp]:
    """For each picture [N] the one that represents its group of near duplicates; itself where it has no earlier one.

    A picture belongs to the first representative that it is a near duplicate of, so nothing hangs together by a chain
    of others. The first `given` pictures all represent themselves. Hashes may differ in `distance` bits. Memory grows
    with N alone. So does the time, but where the hashes of all are alike: there it grows with N times the groups.
    """
    count = len(looks.hashes)
    leader = np.arange(count)
    leaders = _Leaders(looks, distance)
    leaders.add(leader[:given])
    start = given
    while start < count:
        rows = np.arange(start, min(count, start + max(1, min(ROWS, BLOCK // FRESH))))
        pairs = leaders.near(rows)
        known, first = np.unique(pairs[:, 0], return_index=True)
        leader[rows[known]] = pairs[first, 1]
        new = np.delete(rows, known)
        leader[new] = new[_first(_near(looks, new, new, distance), len(new))]
        leaders.add(new[leader[new] == new])
        start = rows[-1] + 1
    return leader


class _Leaders:
    """The representatives so far: most in an index of their hashes, the last ones beside it, since it is made anew as
    a whole."""

    def __init__(self, looks: Looks, distance: int) -> None:
        self.looks = looks
        self.distance = distance
        self.indexed = self.fresh = np.arange(0)
        self.index = HashIndex(looks.hashes[:0], distance)

    def add(self, more: NDArray[np.intp]) -> None:
        self.fresh = np.concatenate([self.fresh, more])
        if len(self.fresh) > FRESH:
            self.indexed, self.fresh = np.concatenate([self.indexed, self.fresh]), self.fresh[:0]
            self.index = HashIndex(self.looks.hashes[self.indexed], self.distance)

    def near(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Pairs [P, 2] of places in `rows` and of their representatives among all pictures, in order."""
        pairs = [self._near_indexed(rows), _near(self.looks, rows, self.fresh, self.distance)]
        found = np.concatenate(
            [
                np.stack([one[:, 0], all_[one[:, 1]]], axis=1)
                for one, all_ in zip(pairs, (self.indexed, self.fresh), strict=True)
            ]
        )
        return found[np.lexsort((found[:, 1], found[:, 0]))]

    def _near_indexed(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """The same of those in the index, as places in it."""
        if self.distance <= MOST_INDEXED:
            pairs = self.index.pairs(self.looks.hashes[rows], most=BLOCK)
            if pairs is not None:
                return pairs[_proven(self.looks, rows[pairs[:, 0]], self.indexed[pairs[:, 1]])]
        at_once = max(1, BLOCK // max(1, len(self.indexed)))
        parts = [np.empty((0, 2), dtype=np.intp)]
        for start in range(0, len(rows), at_once):
            part = _near(self.looks, rows[start : start + at_once], self.indexed, self.distance)
            part[:, 0] += start
            parts.append(part)
        return np.concatenate(parts)


def _first(pairs: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """The same among `count` pictures, of which the pairs of near duplicates are known, each in both orders."""
    alike = np.eye(count, dtype=np.bool_)
    alike[pairs[:, 0], pairs[:, 1]] = True
    leader = np.full(count, -1)
    for index in range(count):
        if leader[index] < 0:
            leader[(leader < 0) & alike[index]] = index
    return leader


def _near(looks: Looks, rows: NDArray[np.intp], columns: NDArray[np.intp], distance: int) -> NDArray[np.intp]:
    """Pairs [P, 2] of places in `rows` and `columns` whose pictures are near duplicates, in order."""
    near = close(looks.hashes[rows, None], looks.hashes[None, columns], distance)
    some, candidates = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    shapes = normalised(looks.colours[rows[some]])
    found = [np.empty((0, 2), dtype=np.intp)]
    for piece in np.split(candidates, range(PIECE, len(candidates), PIECE)):
        apart = difference(shapes, normalised(looks.colours[columns[piece]]))
        tolerance = np.maximum(looks.tolerance[rows[some], None], looks.tolerance[None, columns[piece]])
        pairs = np.argwhere(near[np.ix_(some, piece)] & (apart <= tolerance))
        found.append(np.stack([some[pairs[:, 0]], piece[pairs[:, 1]]], axis=1))
    pairs = np.concatenate(found)
    pairs = pairs[_colour_difference(looks.colours, rows[pairs[:, 0]], columns[pairs[:, 1]]) <= MAX_COLOUR_DIFFERENCE]
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _proven(looks: Looks, first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Whether pairs of pictures [P] of close hashes are near duplicates by their thumbnails."""
    tolerance = np.maximum(looks.tolerance[first], looks.tolerance[second])
    apart = np.empty(len(first))
    for start in range(0, len(first), PIECE):
        one = slice(start, start + PIECE)
        shapes = normalised(looks.colours[first[one]]) - normalised(looks.colours[second[one]])
        apart[one] = np.square(shapes, dtype=np.float64).sum(axis=1)
    return np.asarray(
        (apart <= tolerance) & (_colour_difference(looks.colours, first, second) <= MAX_COLOUR_DIFFERENCE)
    )


def _colour_difference(
    colours: NDArray[np.uint8], first: NDArray[np.intp], second: NDArray[np.intp]
) -> NDArray[np.float64]:
    pieces = (slice(start, start + PIECE) for start in range(0, len(first), PIECE))
    means = [np.abs(colours[first[one]].astype(np.int16) - colours[second[one]]).mean(axis=1) for one in pieces]
    return np.concatenate([np.empty(0), *means])


def groups(leader: NDArray[np.intp]) -> list[list[int]]:
    """The groups that `representatives` found, each sorted; pictures without a near duplicate are left out."""
    members: dict[int, list[int]] = {}
    for index in np.flatnonzero(np.bincount(leader, minlength=len(leader))[leader] > 1).tolist():
        members.setdefault(int(leader[index]), []).append(index)
    return list(members.values())


def same_content(contents: Sequence[str]) -> list[list[int]]:
    """Indices of equal content, in order of their first member; a content that is there once is a group of one."""
    members: dict[str, list[int]] = {}
    for index, content in enumerate(contents):
        members.setdefault(content, []).append(index)
    return list(members.values())
