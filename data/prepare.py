"""Check every picture of data/raw and write data/processed, data/manifest.csv and the reports: see data/README.md.

Everything is built beside its place; the manifest goes first and comes last, so a killed run leaves the former
result or none.
"""

from __future__ import annotations

import argparse
import csv
import functools
import io
import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data import report
from data.duplicates import groups, near_pairs, same_content
from data.errors import DataError
from data.files import make_folders, workspace
from data.pictures import Examined, Refused, Rules, Task, examine
from data.split import SPLITS, AssignedPicture, held_back, own_split
from data.tree import class_of, find_tree, folder_of
from training import params
from training.common.command import run_command
from training.common.cores import usable_cores
from training.common.files import discard, fresh, swap, write_text
from training.common.progress import Bar

RAW = Path("data/raw")
PROCESSED = Path("data/processed")
MANIFEST = Path("data/manifest.csv")
REPORT_JSON = Path("data/report.json")
REPORT_HTML = Path("data/report.html")
WORK = Path("data/.prepare")
COLUMNS = ("path", "class", "split", "sha256", "width", "height", "source")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m data.prepare", description=__doc__)
    params.add_arguments(parser, params.Prepare)
    loaded = params.load()
    section = params.override(loaded.prepare, parser.parse_args())
    print(report.tell(prepare(section, loaded.data.rename)))


def prepare(section: params.Prepare, rename: Mapping[str, str], root: Path = Path()) -> report.Summary:
    """Make the outputs under `root` from its data/raw; DataError when they cannot be split into classes."""
    raw = root / RAW
    if not raw.is_dir():
        raise DataError(f"{raw} is missing: run python -m data.fetch")
    tree = find_tree(raw)
    labels = {source: class_name(source, rename) for source in tree.pictures}
    with workspace(root / WORK) as work:
        staged = _class_folders(work / "processed", sorted(set(labels.values())))
        tasks = [
            Task(source, path, staged / folder_of(labels[source])) for source, path in sorted(tree.pictures.items())
        ]
        good, refused = _examine_all(tasks, Rules(section.min_side, section.max_short_side), section.workers)
        unique, copies = drop_copies(assign(good, labels, section, tree.has_test_folder()))
        pairs = _pairs(unique, section.near_duplicate_distance)
        pictures, held = hold_back(unique, pairs)
        check_splits(pictures, set(labels.values()))
        alike = [[unique[index] for index in group] for group in groups(pairs, len(unique))]
        findings = report.Findings(pictures, sorted(refused + copies + held, key=lambda file: file.source), alike)
        text = manifest(pictures)
        summary = report.summarise(findings, text)
        _drop_unlisted(staged, pictures)
        _publish(root, staged, text, json.dumps(summary, indent=2) + "\n", report.page(findings, summary, raw))
        return summary


def class_name(source: str, rename: Mapping[str, str]) -> str:
    """The class of the picture `source` in data/raw; several folders may become one class."""
    name = class_of(source, rename)
    if name in ("", ".", "..") or set(name) & set("\\\0\r\n"):
        raise DataError(f"{name!r} cannot be a class name: no folder can be called so (see data.rename)")
    return name


def _class_folders(staged: Path, classes: Sequence[str]) -> Path:
    if len(classes) < 2:
        raise DataError(f"data.rename makes one class of all folders ({classes[0]}): two or more are needed")
    fresh(staged)
    make_folders(staged, [folder_of(name) for name in classes])
    return staged


def _examine_all(tasks: Sequence[Task], rules: Rules, workers: int) -> tuple[list[Examined], list[Refused]]:
    """Examine every file in a pool of processes; only descriptions come back, never pixels."""
    good: list[Examined] = []
    refused: list[Refused] = []
    for found in Bar(_examined(tasks, rules, workers), "prepare", len(tasks), unit="picture"):
        if isinstance(found, Examined):
            good.append(found)
        else:
            refused.append(found)
    return good, refused


def _examined(tasks: Sequence[Task], rules: Rules, workers: int) -> Iterator[Examined | Refused]:
    pool = ProcessPoolExecutor(workers or usable_cores(), get_context("spawn"), initializer=_follow_parent)
    try:
        with pool:
            yield from pool.map(functools.partial(examine, rules=rules), tasks, chunksize=16)
    except BrokenProcessPool:
        raise DataError("a worker process was ended from outside, perhaps for memory: lower prepare.workers") from None


def _follow_parent() -> None:
    """Leave Ctrl-C to the parent, and end when it is killed: a worker waits for work for ever otherwise."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        if parent := parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def assign(
    good: Sequence[Examined], labels: Mapping[str, str], section: params.Prepare, has_test_folder: bool
) -> list[AssignedPicture]:
    """Class and split of each picture; a given test folder is the test split, else the hash of the content decides."""
    if section.validation + section.test >= 1:
        raise DataError("prepare.validation and prepare.test leave nothing to train on: their sum must be less than 1")
    test = 0.0 if has_test_folder else section.test
    pictures = []
    for found in good:
        in_test = has_test_folder and found.source.startswith("test/")
        split = "test" if in_test else own_split(found.content, section.validation, test)
        pictures.append(AssignedPicture(found, labels[found.source], split))
    return pictures


def drop_copies(pictures: Sequence[AssignedPicture]) -> tuple[list[AssignedPicture], list[Refused]]:
    """One picture for each content: in a given test folder, else first by name. None if its copies differ in class."""
    ordered = sorted(pictures, key=lambda picture: (-SPLITS.index(picture.split), picture.examined.source))
    kept, refused = [], []
    for group in same_content([picture.examined.content for picture in ordered]):
        first, *others = (ordered[index] for index in group)
        if len({first.label, *(other.label for other in others)}) > 1:
            refused += [_conflict(picture, [first, *others]) for picture in (first, *others)]
        else:
            kept.append(first)
            refused += [_refuse(other, "duplicate", f"same pixels as {first.examined.source}") for other in others]
    return sorted(kept, key=lambda picture: picture.name), refused


def _conflict(picture: AssignedPicture, group: Sequence[AssignedPicture]) -> Refused:
    others = ", ".join(other.examined.source for other in group if other.label != picture.label)
    return _refuse(picture, "label_conflict", f"same pixels in another class: {others}")


def _refuse(picture: AssignedPicture, reason: str, detail: str) -> Refused:
    return Refused(picture.examined.source, reason, detail)


def _pairs(pictures: Sequence[AssignedPicture], distance: int) -> NDArray[np.intp]:
    looks = np.array([picture.examined.look for picture in pictures], dtype=np.uint64)
    tiny = np.frombuffer(b"".join(picture.examined.colours for picture in pictures), dtype=np.uint8)
    return near_pairs(looks, tiny.reshape(len(pictures), -1), distance)


def hold_back(
    pictures: Sequence[AssignedPicture], pairs: NDArray[np.intp]
) -> tuple[list[AssignedPicture], list[Refused]]:
    """Take out the lower side of near duplicates that would straddle splits; see data/split.py."""
    held = held_back([picture.split for picture in pictures], pairs)
    refused = [
        _refuse(
            pictures[low],
            "near_duplicate",
            f"in {pictures[low].split}, looks like {pictures[high].examined.source} in {pictures[high].split}",
        )
        for low, high in held.items()
    ]
    return [picture for index, picture in enumerate(pictures) if index not in held], refused


def check_splits(pictures: Sequence[AssignedPicture], classes: set[str]) -> None:
    """Raise DataError, saying what to do, when a class has no picture in a split."""
    there = {(picture.label, picture.split) for picture in pictures}
    for name in sorted(classes):
        for split in SPLITS:
            if (name, split) not in there:
                count = sum(picture.label == name for picture in pictures)
                raise DataError(
                    f"class {name} has no good picture in the {split} split ({count} in all): add pictures, raise "
                    f"prepare.validation or prepare.test, or bring a test folder ({{train,test}}/CLASS/NAME)"
                )


def manifest(pictures: Sequence[AssignedPicture]) -> str:
    """The text of manifest.csv: one row for each picture, sorted by path."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for picture in sorted(pictures, key=lambda picture: picture.name):
        found = picture.examined
        writer.writerow(
            (picture.name, picture.label, picture.split, found.sha256, found.width, found.height, found.source)
        )
    return table.getvalue()


def _drop_unlisted(staged: Path, pictures: Sequence[AssignedPicture]) -> None:
    listed = {picture.examined.path for picture in pictures}
    for path in staged.glob("*/*"):
        if path not in listed:
            path.unlink()


def _publish(root: Path, staged: Path, manifest_text: str, report_text: str, page: str) -> None:
    discard(root / MANIFEST)
    swap(staged, root / PROCESSED)
    write_text(root / REPORT_JSON, report_text)
    write_text(root / REPORT_HTML, page)
    write_text(root / MANIFEST, manifest_text)


if __name__ == "__main__":
    run_command(main)
