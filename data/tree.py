"""Where the class folders are: `CLASS/NAME.jpg` or `{train,test}/CLASS/NAME.jpg`, at whatever depth of a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data.errors import DataError

SUFFIXES = frozenset((".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"))
NO_CLASSES = frozenset(("train", "test", "test1", "val", "valid", "validation"))
SLASH = "%2F"  # in the names of folders
LAYOUT = "expected CLASS/NAME.jpg or {train,test}/CLASS/NAME.jpg with two classes or more"


@dataclass(frozen=True)
class Folder:
    """What one folder holds; hidden files and `__MACOSX` count as others."""

    path: Path
    pictures: list[Path]
    others: list[Path]
    folders: list[Folder]

    def has_pictures(self) -> bool:
        return bool(self.pictures) or any(folder.has_pictures() for folder in self.folders)

    def files(self) -> list[Path]:
        return self.pictures + self.others + [path for folder in self.folders for path in folder.files()]


@dataclass(frozen=True)
class Tree:
    """The pictures by name (`CLASS/NAME` or `train/CLASS/NAME`, with `/`), and the files that are none."""

    pictures: dict[str, Path]
    ignored: list[Path]

    def has_test_folder(self) -> bool:
        return any(name.startswith("test/") and name.count("/") == 2 for name in self.pictures)


def class_of(name: str, rename: Mapping[str, str]) -> str:
    """The class of the picture `name` of a tree: its folder's name, or what `rename` makes of it."""
    folder = name.split("/")[-2]
    return rename.get(folder, folder).replace(SLASH, "/")


def folder_of(label: str) -> str:
    """The name of the folder of a class: the class, in which no slash can stand as itself."""
    return label.replace("/", SLASH)


def find_tree(root: Path) -> Tree:
    """The class tree in `root`, through single wrapper folders.

    Raises DataError when there is none, it has fewer than two classes, or a class has no pictures.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: {LAYOUT}")
    everything = _scan(root, frozenset())
    top = _descend(everything)
    train = _named(top, "train")
    if train and any(folder.pictures for folder in train.folders):
        test = _named(top, "test")
        pictures = _classes(train, "train/") | (_classes(test, "test/") if test else {})
    elif {folder.path.name.lower() for folder in _class_folders(top)} <= NO_CLASSES:
        raise DataError(f"no class folders in {top.path}: {LAYOUT}")
    else:
        pictures = _classes(top, "")
    used = set(pictures.values())
    return Tree(pictures, sorted(path for path in everything.files() if path not in used))


def _scan(path: Path, above: frozenset[str]) -> Folder:
    found = Folder(path, [], [], [])
    above = above | {os.path.realpath(path)}
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        child = Path(entry.path)
        if not entry.is_dir():
            is_picture = child.suffix.lower() in SUFFIXES and not entry.name.startswith(".")
            (found.pictures if is_picture else found.others).append(child)
        elif not (entry.name.startswith(".") or entry.name == "__MACOSX" or os.path.realpath(child) in above):
            found.folders.append(_scan(child, above))
    return found


def _descend(folder: Folder) -> Folder:
    """The folder of the class folders: through every folder that is the only one with pictures and no class itself."""
    inside = [child for child in folder.folders if child.has_pictures()]
    only = inside[0] if len(inside) == 1 and inside[0].path.name.lower() != "train" else None
    if only and any(deeper.has_pictures() for deeper in only.folders):
        return _descend(only)
    return folder


def _named(folder: Folder, name: str) -> Folder | None:
    return next((child for child in folder.folders if child.path.name.lower() == name), None)


def _class_folders(folder: Folder) -> list[Folder]:
    return [child for child in folder.folders if child.pictures]


def _classes(folder: Folder, prefix: str) -> dict[str, Path]:
    empty = [child.path for child in folder.folders if not child.has_pictures()]
    if empty:
        raise DataError(f"class folder {empty[0]} has no pictures: add some, or remove the folder")
    classes = _class_folders(folder)
    if len(classes) < 2:
        names = ", ".join(child.path.name for child in classes) or "none"
        raise DataError(f"fewer than two class folders in {folder.path} (found: {names}): {LAYOUT}")
    pictures = {f"{prefix}{child.path.name}/{path.name}": path for child in classes for path in child.pictures}
    for name in pictures:
        if set(name) & set("\r\n") or name != name.encode("utf-8", "ignore").decode():
            raise DataError(f"the name {name!r} cannot be a line of a UTF-8 manifest: rename the file")
    return pictures
