"""Which split a picture belongs to: decided by the picture alone, so that adding pictures never moves another.

Near duplicates must not straddle splits either. A rule that let a newcomer pull its near duplicates into its split
would move pictures, so none is moved: where two near duplicates fall into different splits, the one in the lower
split (train < validation < test) is held back and listed in the report. What is held out for the test therefore
never shrinks when near duplicates of it arrive, and no picture a model was trained on ever becomes a test picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.pictures import Examined
from data.tree import folder_of

SPLITS = ("train", "validation", "test")  # from the lowest rank to the highest


@dataclass(frozen=True)
class AssignedPicture:
    """A good picture, its class and its split."""

    examined: Examined
    label: str
    split: str

    @property
    def name(self) -> str:
        """Its path relative to data/processed."""
        return f"{folder_of(self.label)}/{self.examined.path.name}"


def own_split(content: str, validation: float, test: float) -> str:
    """The split of a picture with this content hash (hex): test from the low end of its range, validation from the top.

    So another share of one never moves a picture into or out of the other.
    """
    place = int(content[:16], 16) / 2**64
    if place < test:
        return "test"
    return "validation" if place >= 1 - validation else "train"


def held_back(splits: Sequence[str], pairs: NDArray[np.intp]) -> dict[int, int]:
    """The pictures that may not be used -> a near duplicate of theirs in a higher split that is used.

    `pairs` [P, 2] are indices into `splits`. A picture that is held back itself holds back none.
    """
    rank = np.array([SPLITS.index(split) for split in splits], dtype=np.intp)
    held: dict[int, int] = {}
    first, second = pairs[:, 0], pairs[:, 1]
    lower = np.where(rank[first] < rank[second], first, second)
    higher = np.where(rank[first] < rank[second], second, first)
    straddling = rank[lower] != rank[higher]
    edges = sorted(
        zip(lower[straddling].tolist(), higher[straddling].tolist(), strict=True),
        key=lambda edge: (-rank[edge[0]], edge),
    )
    for low, high in edges:  # validation pictures first: whether they stay decides about train pictures
        if high not in held:
            held.setdefault(low, high)
    return held
