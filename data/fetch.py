"""Fetch the pictures of `data.source` into data/raw; a rerun writes only what changed.

    python -m data.fetch --explain PATH    show how a folder or archive would be read; nothing is copied

Pictures become CLASS/NAME or SPLIT/CLASS/NAME. The new content is built beside data/raw and swapped in as a whole, so a
killed run leaves the former pictures or none.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from data import layout
from data.errors import DataError
from data.files import copy_whole, fingerprint, make_folders, workspace
from data.layout.plan import Plan, counted
from data.layout.scan import Folder
from data.sources.archive import unpack
from data.sources.places import locate
from data.tree import How, Tree, class_of, find_tree, look
from training import params
from training.common.command import run_command
from training.common.files import discard, file_sha256, fresh, swap, write_text
from training.common.progress import Bar
from training.common.table import plain

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
    notes: tuple[str, ...] = ()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data.fetch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--explain", metavar="PATH", type=Path, help="a folder or an archive, to be shown as a table")
    params.add_arguments(parser, params.Data)
    arguments = parser.parse_args()
    section = params.override(params.load().data, arguments)
    if arguments.explain:
        explain(arguments.explain, section)
    else:
        tell(fetch(section), section.source)


def how(section: params.Data, root: Path = Path()) -> How:
    """What `section` says of how a folder is read."""
    return How(section.rename, section.labels, tuple(section.ignore), root)


def fetch(section: params.Data, root: Path = Path()) -> Fetched:
    """Make data/raw under `root` equal to the source; DataError when the source cannot be used."""
    raw = root / RAW
    with workspace(root / WORK) as work:
        source = locate(section, root)
        state, known = work / "state.json", [source.fingerprint, _reading(section, root)]
        if _recorded(state) == [*known, _listing(raw)]:
            return _summary(find_tree(raw, How(section.rename)), 0, 0, [])
        discard(state)
        folder = source.open(work / "unpacked")
        _check_apart(folder, raw)
        tree = find_tree(folder, how(section, root))
        former = _names(raw)
        written = _stage(tree, fresh(work / "raw"), raw)
        swap(work / "raw", raw)
        discard(work / "unpacked")
        write_text(state, json.dumps([*known, _listing(raw)]))
        ignored = [path.relative_to(folder).as_posix() for path in tree.ignored]
        return _summary(tree, written, len(former - tree.pictures.keys()), ignored)


def _reading(section: params.Data, root: Path) -> str:
    """Another one when the same source would be read in another way, by other params or other code."""
    code = sorted(Path(layout.__file__).parent.glob("*.py"))
    labels = root / section.labels if section.labels else None
    listed = file_sha256(labels) if labels and labels.is_file() else None
    told = [section.rename, section.labels, section.ignore, section.archive_encoding]
    return json.dumps([told, listed, [file_sha256(path)[:16] for path in code]])


def explain(path: Path, section: params.Data) -> None:
    """Print how a folder or an archive would be read; DataError, after the table, when it would be refused."""
    if path.is_dir():
        _explain(*look(path, how(section)), section)
        return
    if not path.is_file():
        raise DataError(f"{path} does not exist: name a folder or an archive of pictures")
    with tempfile.TemporaryDirectory() as made:
        unpack(path, Path(made), section.archive_encoding)
        _explain(*look(Path(made), how(section)), section)


def _explain(everything: Folder, plan: Plan, section: params.Data) -> None:
    print(plan.table())
    others = sum(len(folder.others) for folder in everything.walk())
    for note in (*plan.notes, *([f"besides {counted(others, 'other file')}"] if others else [])):
        print(plain(note))
    plan.check()
    given = {place.split for place in plan.places.values()}
    drawn = [name for name in ("validation", "test") if name not in given]
    drawn_from = "train" if "train" in given else "all"
    said = f"{' and '.join(drawn)} will be drawn from {drawn_from}" if drawn else "every split is given"
    print(f"{counted(len(plan.places), 'picture')} in {len(_labels(plan, section))} classes; {said}")


def _labels(plan: Plan, section: params.Data) -> set[str]:
    return {class_of(name, section.rename) for name in plan.names}


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
            copy_whole(path, target)
            written += 1
    return written


def _summary(tree: Tree, written: int, removed: int, ignored: list[str]) -> Fetched:
    classes = Counter(name.split("/")[-2] for name in tree.pictures)
    return Fetched(len(tree.pictures), classes, written, removed, ignored, tree.notes)


def tell(done: Fetched, source: str) -> None:
    """Print what was fetched, and every kind of file that was left out."""
    counts = ", ".join(f"{name} {count}" for name, count in sorted(done.classes.items()))
    change = f"{done.written} written, {done.removed} removed" if done.written or done.removed else "unchanged"
    print(f"{RAW}: {counted(done.pictures, 'picture')} ({counts}) from {source}, {change}")
    for note in done.notes:
        print(f"  {plain(note)}")
    for name in done.ignored[:10]:
        print(f"  ignored, no picture: {plain(name)}")
    if len(done.ignored) > 10:
        print(f"  ... and {len(done.ignored) - 10} more")


if __name__ == "__main__":
    run_command(main)
