"""Which split a picture belongs to: decided by its content, so that adding pictures moves no other.

A group of near duplicates goes as a whole where its representative goes. What the source itself calls test or
validation stays that, and nothing is drawn in its place; a picture of another split is then set aside if it is a near
duplicate of one of these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from data.pictures import Examined
from data.tree import folder_of

SPLITS = ("train", "validation", "test")
DROPPED = "dropped"  # in place of test, where a correction says that a picture shows no class


@dataclass(frozen=True)
class GoodPicture:
    """A picture that can be used, and its class."""

    examined: Examined
    label: str
    brought: str  # "test" or "validation", if the source says that it is one; else ""
    given: str = field(default="", kw_only=True)  # the class that the source gave, if somebody looked at the picture

    @property
    def is_test(self) -> bool:
        """Whether the source says so."""
        return self.brought == "test"

    @property
    def name(self) -> str:
        """Its path relative to data/processed."""
        return f"{folder_of(self.label)}/{self.examined.path.name}"


@dataclass(frozen=True)
class AssignedPicture(GoodPicture):
    """The same with its split, and the name of the near duplicate that represents its group ("": it has none)."""

    split: str
    group: str = ""


def place(content: str, seed: int = 0) -> float:
    """Where a picture with this content hash (hex) stands between 0 and 1; another seed gives another place."""
    if seed:
        content = hashlib.sha256(f"{seed} {content}".encode()).hexdigest()
    return int(content[:16], 16) / 2**64


def own_split(where: float, validation: float, test: float) -> str:
    """The split of a place: test from the low end, validation from the top.

    So another share of one never moves a picture into or out of the other.
    """
    if where < test:
        return "test"
    return "validation" if where >= 1 - validation else "train"


def class_splits(places: Sequence[float], validation: float, test: float) -> list[str]:
    """The splits of the pictures of one class, or of its groups, by their places.

    Each has its `own_split` if every split then has a picture, and train two. Otherwise the lowest place is test, the
    highest validation, or those nearest to the middle are train, as far as there are enough. Without a share of test
    there is no test, and so with validation.
    """
    own = [own_split(one, validation, test) for one in places]
    shares = {"validation": validation, "test": test}
    held = {name: max(own.count(name), 1) for name, share in shares.items() if share}
    train = 2 if len(places) > len(held) + 1 else 1
    while len(places) - sum(held.values()) < train and max(held.values(), default=0) > 1:
        held[max(held, key=lambda name: held[name])] -= 1
    order = np.argsort(places, kind="stable").tolist()
    splits = ["train"] * len(places)
    for index in order[: held.get("test", 0)]:
        splits[index] = "test"
    for index in order[max(held.get("test", 0), len(order) - held.get("validation", 0)) :]:
        splits[index] = "validation"
    return splits


def group_splits(
    pictures: Sequence[GoodPicture], units: Sequence[int], validation: float, test: float, seed: int
) -> Mapping[int, str]:
    """The split of each of the `units` (indices into `pictures`: single ones and representatives), class by class."""
    classes: dict[str, list[int]] = {}
    for unit in units:
        classes.setdefault(pictures[unit].label, []).append(unit)
    splits: dict[int, str] = {}
    for members in classes.values():
        places = [place(pictures[unit].examined.content, seed) for unit in members]
        splits |= zip(members, class_splits(places, validation, test), strict=True)
    return splits
