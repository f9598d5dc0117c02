"""The pictures of a folder as `CLASS/NAME` or `SPLIT/CLASS/NAME`, whatever its layout (data/layout)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data.errors import DataError
from data.layout import folders, listed
from data.layout.folders import EXPECTED
from data.layout.plan import SLASH, Plan, label_of
from data.layout.scan import SUFFIXES, Folder, scan
from data.layout.words import nfc

__all__ = ["LAYOUT", "SUFFIXES", "How", "Tree", "class_of", "find_tree", "folder_of", "look", "split_of"]
LAYOUT = EXPECTED


@dataclass(frozen=True)
class How:
    """What helps to read a folder: see `data.rename`, `data.labels` and `data.ignore`. `project`: where the file of
    labels may lie besides."""

    rename: Mapping[str, str] = field(default_factory=dict)
    labels: str | None = None
    ignore: tuple[str, ...] = ()
    project: Path = Path()


AS_IT_IS = How()


@dataclass(frozen=True)
class Tree:
    """The pictures by name (`CLASS/NAME` or `SPLIT/CLASS/NAME`, with `/`), the files that are none, and what should be
    known of how they were read."""

    pictures: dict[str, Path]
    ignored: list[Path]
    notes: tuple[str, ...] = ()

    def has_test_folder(self) -> bool:
        return any(split_of(name) == "test" for name in self.pictures)


def split_of(name: str) -> str:
    """The split that the source gives the picture `name` of a tree: train, validation or test; "": none."""
    return name.split("/")[0] if name.count("/") == 2 else ""


def class_of(name: str, rename: Mapping[str, str]) -> str:
    """The class of the picture `name` of a tree: its folder's name, or what `rename` makes of it."""
    return label_of(name.split("/")[-2], rename)


def folder_of(label: str) -> str:
    """The name of the folder of a class: the class, in which no slash can stand as itself."""
    return nfc(label).replace("/", SLASH)


def look(root: Path, how: How = AS_IT_IS) -> tuple[Folder, Plan]:
    """What lies in `root`, and how it is read; DataError when it is no folder, or a file of labels is not one."""
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: {LAYOUT}")
    everything = scan(root, how.ignore)
    file = listed.find(everything, how.labels, how.project)
    plan = listed.read(everything, file, how.rename) if file else folders.read(everything, how.rename)
    for folder in everything.walk():
        for path, why in folder.unread:
            plan.stray([path], f"{why}, or leave it out by data.ignore")
    return everything, plan


def find_tree(root: Path, how: How = AS_IT_IS) -> Tree:
    """The pictures in `root`.

    DataError, with the list and the mend, when one of them has no class, or no split where others have one; when there
    are fewer than two classes, or a class without pictures; and when one class is spelled in two ways.
    """
    everything, plan = look(root, how)
    plan.check()
    others = sorted(path for folder in everything.walk() for path in folder.others)
    return Tree(plan.names, others, tuple(plan.notes))
