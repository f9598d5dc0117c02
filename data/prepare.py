"""Check and split the pictures of data/raw: writes data/processed, data/manifest.csv and the reports.

Everything is built beside its final place. The manifest is removed first and written last, so a killed run leaves the
former result or none. What is checked, and how pictures are split: data/PREPARE.md.
"""

from __future__ import annotations

import argparse
import csv
import functools
import io
import json
import os
import re
import signal
import threading
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context, parent_process
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data import report
from data.duplicates import Looks, groups, representatives, same_content
from data.errors import DataError
from data.files import make_folders, workspace
from data.manifest import COLUMNS
from data.pictures import POINTER, Examined, Refused, Rules, Task, examine
from data.split import DROPPED, SPLITS, AssignedPicture, GoodPicture, group_splits
from data.tree import How, class_of, find_tree, folder_of, split_of
from training import params
from training.common.command import run_command
from training.common.cores import usable_cores
from training.common.files import discard, fresh, swap, write_text
from training.common.progress import Bar
from training.labels import corrections, own_columns
from training.labels.corrections import CORRECTIONS_FILE, Corrections
from training.labels.own_columns import COLUMNS_FILE, Columns

RAW = Path("data/raw")
PROCESSED = Path("data/processed")
MANIFEST = Path("data/manifest.csv")
REPORT_JSON = Path("data/report.json")
REPORT_HTML = Path("data/report.html")
WORK = Path("data/.prepare")
FIRST = ("test", "validation", "")  # of like pictures the one stays whose split is given, test before validation
FEWEST = 5  # pictures of a class: one to test with, one to validate with, and more than two to learn from
NAMED = 10  # classes, in an error about many


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    params.add_arguments(parser, params.Prepare)
    loaded = params.load()
    section = params.override(loaded.prepare, parser.parse_args())
    print(report.tell(prepare(section, loaded.data.rename)))


def prepare(section: params.Prepare, rename: Mapping[str, str], root: Path = Path()) -> report.Summary:
    """Make the outputs under `root` from its data/raw; DataError when they cannot be split into classes."""
    raw = root / RAW
    if not raw.is_dir():
        raise DataError(f"{raw} is missing: run python -m data.fetch")
    tree = find_tree(raw, How(rename))
    labels = {source: class_name(source, rename) for source in tree.pictures}
    if section.validation + section.test >= 1:
        raise DataError("prepare.validation and prepare.test leave nothing to train on: their sum must be less than 1")
    with workspace(root / WORK) as work:
        staged = _class_folders(work / "processed", sorted(set(labels.values())))
        tasks = [
            Task(source, path, staged / folder_of(labels[source])) for source, path in sorted(tree.pictures.items())
        ]
        good, refused = _examine_all(tasks, _rules(section), section.workers)
        columns = own_columns.read(root / COLUMNS_FILE, COLUMNS, tree.pictures.keys())
        said = corrections.read(root / CORRECTIONS_FILE)
        corrections.check(said.values(), set(labels.values()), (found.sha256 for found in good))
        seen = labelled(good, labels)
        unique, copies = _drop_copies([corrected(picture, said, staged) for picture in seen])
        check_left(unique, refused + copies, raw)
        leader = alike(unique, section.near_duplicate_distance)
        assigned, held = assign(unique, leader, section)
        pictures, dropped = without_dropped(assigned, said)
        near = [[unique[index] for index in group] for group in groups(leader)]
        check_splits(pictures, set(labels.values()), {picture.label for group in near for picture in group})
        out = sorted(refused + copies + held + dropped, key=lambda file: file.source)
        findings = report.Findings(pictures, out, near, said)
        text = manifest(pictures, columns)
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
    fresh(staged)
    make_folders(staged, [folder_of(name) for name in classes])
    return staged


def _rules(section: params.Prepare) -> Rules:
    return Rules(section.min_side, section.max_short_side, section.values_from_to)


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
    warnings.simplefilter("ignore")  # of decoders: the verdict on a picture says what matters
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        if parent := parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def labelled(good: Sequence[Examined], labels: Mapping[str, str]) -> list[GoodPicture]:
    """The pictures with their classes; those of a given test or validation folder belong to it."""
    return [
        GoodPicture(found, labels[found.source], brought if brought in FIRST else "")
        for found in good
        for brought in (split_of(found.source),)
    ]


def corrected(picture: GoodPicture, said: Corrections, staged: Path) -> GoodPicture:
    """The picture as data/corrections.csv has it, its file in the folder of its class."""
    word = said.get(picture.examined.sha256)
    if word is None:
        return picture
    label = picture.label if word.drops else word.label
    former = picture.examined.path
    path = former.replace(staged / folder_of(label) / former.name)
    return replace(picture, examined=replace(picture.examined, path=path), label=label, given=picture.label)


def without_dropped(
    pictures: Sequence[AssignedPicture], said: Corrections
) -> tuple[list[AssignedPicture], list[Refused]]:
    """The pictures that corrections leave. A dropped test picture stays, in a split of its own, so that evaluation can
    say what the accuracy is on the test split as it was given. Raises CorrectionError as corrections.check_test."""
    corrections.check_test(said.values(), (one.examined.sha256 for one in pictures if one.split == "test"))
    kept, dropped = [], []
    for picture in pictures:
        word = said.get(picture.examined.sha256)
        if word is None or not word.drops:
            kept.append(picture)
        elif picture.split == "test":
            kept.append(replace(picture, split=DROPPED))
        else:
            dropped.append(_refuse(picture, "dropped", f"{word.why or 'no reason given'} ({word.who})"))
    return kept, dropped


def _drop_copies(pictures: Sequence[GoodPicture]) -> tuple[list[GoodPicture], list[Refused]]:
    """One picture for each content: in a given test folder, or else validation folder, or else the first by name. None
    if its copies differ in class."""
    ordered = sorted(pictures, key=_order)
    kept, refused = [], []
    for group in same_content([picture.examined.content for picture in ordered]):
        first, *others = (ordered[index] for index in group)
        if len({first.label, *(other.label for other in others)}) > 1:
            refused += [_conflict(picture, [first, *others]) for picture in (first, *others)]
        else:
            kept.append(first)
            refused += [_refuse(other, "duplicate", f"same pixels as {first.examined.source}") for other in others]
    return kept, refused


def _order(picture: GoodPicture) -> tuple[int, list[str | int], str]:
    """Given splits first, then by name, numbers by their value: what came first represents its near duplicates."""
    source = picture.examined.source
    parts = re.split(r"([0-9]+)", source)
    return FIRST.index(picture.brought), [int(part) if place % 2 else part for place, part in enumerate(parts)], source


def _conflict(picture: GoodPicture, group: Sequence[GoodPicture]) -> Refused:
    others = ", ".join(other.examined.source for other in group if other.label != picture.label)
    return _refuse(picture, "label_conflict", f"same pixels in another class: {others}")


def _refuse(picture: GoodPicture, reason: str, detail: str) -> Refused:
    return Refused(picture.examined.source, reason, detail)


def alike(pictures: Sequence[GoodPicture], distance: int) -> NDArray[np.intp]:
    """For each picture the index of the one that represents its near duplicates.

    Pictures of a given test split come first, and represent themselves; then those of a given validation split, which
    are represented by a test picture or by themselves.
    """
    examined = [picture.examined for picture in pictures]
    looks = Looks(
        np.array([found.look for found in examined], dtype=np.uint64),
        np.frombuffer(b"".join(found.colours for found in examined), dtype=np.uint8).reshape(len(examined), -1),
        np.array([found.tolerance for found in examined], dtype=np.int64),
    )
    tests, given = (sum(picture.brought in names for picture in pictures) for names in (FIRST[:1], FIRST[:2]))
    leader = representatives(looks, distance, given)
    if 0 < tests < given:
        first = Looks(looks.hashes[:given], looks.colours[:given], looks.tolerance[:given])
        other = representatives(first, distance, tests)
        leader[:given] = np.where(other < tests, other, leader[:given])
    return leader


def assign(
    pictures: Sequence[GoodPicture], leader: NDArray[np.intp], section: params.Prepare
) -> tuple[list[AssignedPicture], list[Refused]]:
    """Every picture with its split, near duplicates in one; those of a picture of a given split are set aside."""
    units = [index for index in np.unique(leader).tolist() if not pictures[index].brought]
    given = {picture.brought for picture in pictures}
    shares = {"validation": section.validation, "test": section.test} | dict.fromkeys(given - {""}, 0.0)
    splits = dict(group_splits(pictures, units, **shares, seed=section.seed))
    sizes = np.bincount(leader, minlength=len(leader))
    assigned, held = [], []
    for number, (picture, index) in enumerate(zip(pictures, leader.tolist(), strict=True)):
        first = pictures[index]
        if first.brought and index != number:
            detail = f"looks like {first.examined.source}, a {first.brought} picture"
            held.append(_refuse(picture, "near_duplicate", detail))
            continue
        split = picture.brought or splits[index]
        group = first.name if sizes[index] > 1 and not first.brought else ""
        assigned.append(
            AssignedPicture(picture.examined, picture.label, picture.brought, split, group, given=picture.given)
        )
    return sorted(assigned, key=lambda picture: picture.name), held


def check_left(pictures: Sequence[GoodPicture], refused: Sequence[Refused], raw: Path) -> None:
    """Raise DataError, saying what to do, when files are pointers of Git LFS, or when no picture is left."""
    pointers = [file.source for file in refused if file.reason == POINTER]
    if pointers:
        raise DataError(
            f"{len(pointers)} of {len(pictures) + len(refused)} files in {raw} are pointers of Git LFS, not pictures "
            f"(such as {pointers[0]}): run `git lfs pull` where they come from, then python -m data.fetch"
        )
    if not pictures:
        reasons = Counter(file.reason for file in refused)
        counts = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        raise DataError(
            f"none of the {len(refused)} files in {raw} can be used: {counts} "
            f"(such as {refused[0].source}: {refused[0].detail})"
        )


def check_splits(pictures: Sequence[AssignedPicture], classes: set[str], near: Collection[str]) -> None:
    """Raise DataError, saying what to do, when a class has too few pictures, or none in a split.

    `near`: classes of which pictures are in groups of near duplicates.
    """
    counts = Counter(picture.label for picture in pictures)
    if few := [f"{name} {counts[name]}" for name in sorted(classes) if counts[name] < FEWEST]:
        listed = ", ".join(few[:NAMED]) + (f" and {len(few) - NAMED} more" if len(few) > NAMED else "")
        raise DataError(
            f"{FEWEST} good pictures or more are needed of every class, and here are fewer: {listed}. Add pictures, "
            "or merge classes by data.rename, or remove their folders"
        )
    there = {(picture.label, picture.split) for picture in pictures}
    for name in sorted(classes):
        for split in SPLITS:
            if (name, split) not in there:
                why = ", and near duplicates stay together" if name in near else ""
                raise DataError(
                    f"class {name} has no good picture in the {split} split ({counts[name]} in all{why}): add pictures "
                    f"to it, or to its folder in {split} where the source gives the splits (SPLIT/CLASS/NAME)"
                )


def manifest(pictures: Sequence[AssignedPicture], columns: Columns) -> str:
    """The text of manifest.csv: one row for each picture, sorted by path, with columns of one's own at its end."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow((*COLUMNS, *columns.names))
    for picture in sorted(pictures, key=lambda picture: picture.name):
        found = picture.examined
        writer.writerow(
            (
                *(picture.name, picture.label, picture.split),
                *(found.sha256, found.width, found.height, found.source, picture.group, picture.given),
                *columns.of(found.source),
            )
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
