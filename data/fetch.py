"""Bring the pictures of `data.source` into data/raw, named as in the source; a rerun writes only what changed.

The new content is built beside data/raw and swapped in whole, so that a killed run leaves the former or none.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from data.errors import DataError
from data.files import fingerprint, make_folders, workspace
from data.sources import locate
from data.tree import Tree, find_tree
from training import params
from training.common.command import run_command
from training.common.files import discard, fresh, swap, write_text
from training.common.progress import Bar

RAW = Path("data/raw")
WORK = Path("data/.fetch")


@dataclass(frozen=True)
class Fetched:
    """What a run did to data/raw."""

    pictures: int
    classes: Counter[str]
    written: int
    removed: int
    ignored: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m data.fetch", description=__doc__)
    params.add_arguments(parser, params.Data)
    section = params.override(params.load().data, parser.parse_args())
    tell(fetch(section), section.source)


def fetch(section: params.Data, root: Path = Path()) -> Fetched:
    """Make data/raw under `root` equal to the source; DataError when the source cannot be used."""
    raw = root / RAW
    with workspace(root / WORK) as work:
        source = locate(section, root)
        state = work / "state.json"
        if _recorded(state) == [source.fingerprint, _listing(raw)]:
            return _summary(find_tree(raw), 0, 0, [])
        discard(state)
        folder = source.open(work / "unpacked")
        _check_apart(folder, raw)
        tree = find_tree(folder)
        former = _names(raw)
        written = _stage(tree, fresh(work / "raw"), raw)
        swap(work / "raw", raw)
        discard(work / "unpacked")
        write_text(state, json.dumps([source.fingerprint, _listing(raw)]))
        ignored = [path.relative_to(folder).as_posix() for path in tree.ignored]
        return _summary(tree, written, len(former - tree.pictures.keys()), ignored)


def _recorded(state: Path) -> object:
    try:
        return json.loads(state.read_text())
    except (OSError, ValueError):
        return None


def _files(folder: Path) -> list[tuple[str, Path]]:
    inside = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    return [(path.relative_to(folder).as_posix(), path) for path in inside]


def _names(folder: Path) -> set[str]:
    return {name for name, _ in _files(folder)}


def _listing(folder: Path) -> str:
    return fingerprint(_files(folder))


def _check_apart(folder: Path, raw: Path) -> None:
    inner, outer = folder.resolve(), raw.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise DataError(f"data.path {folder} and {raw}, where its pictures are copied to, overlap: use another folder")


def _stage(tree: Tree, staged: Path, former: Path) -> int:
    """Fill `staged` with the pictures; those that `former` holds unchanged are linked. Returns how many are new."""
    written = 0
    make_folders(staged, sorted({name.rpartition("/")[0] for name in tree.pictures}))
    for name, path in Bar(tree.pictures.items(), desc="fetch", unit="picture"):
        target, known = staged / name, former / name
        if known.is_file() and filecmp.cmp(path, known, shallow=False):
            os.link(known, target)  # keeps its time of change: DVC need not hash it again
        else:
            shutil.copyfile(path, target)
            written += 1
    return written


def _summary(tree: Tree, written: int, removed: int, ignored: list[str]) -> Fetched:
    classes = Counter(name.split("/")[-2] for name in tree.pictures)
    return Fetched(len(tree.pictures), classes, written, removed, ignored)


def tell(done: Fetched, source: str) -> None:
    """Print what was fetched, and every kind of file that was left out."""
    counts = ", ".join(f"{name} {count}" for name, count in sorted(done.classes.items()))
    change = f"{done.written} written, {done.removed} removed" if done.written or done.removed else "unchanged"
    print(f"{RAW}: {done.pictures} pictures ({counts}) from {source}, {change}")
    for name in done.ignored[:10]:
        print(f"  ignored, no picture of a class: {name}")
    if len(done.ignored) > 10:
        print(f"  ... and {len(done.ignored) - 10} more")


if __name__ == "__main__":
    run_command(main)
