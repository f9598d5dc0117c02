"""Classes in a CSV file: `path`, `label` (or `class`) and perhaps `split`, a row for every picture."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data.errors import DataError
from data.layout.plan import SHOWN, Place, Plan, counted
from data.layout.scan import Folder
from data.layout.words import LISTED, nfc, split_of

USUAL = "labels.csv"  # which is read without being asked for
LABELS = ("label", "class")
COLUMNS = "the columns path, label and, if you like, split"


@dataclass(frozen=True)
class Row:
    """A line of the file, which begins with 1."""

    line: int
    path: str
    label: str
    split: str  # as it stands there


def find(everything: Folder, named: str | None, project: Path) -> Path | None:
    """The file that tells the classes of the pictures in a folder; None: there is none.

    The one `named` (data.labels), below the folder or in the project; else `labels.csv` in the folder, or in the
    only folder of a folder. DataError when the named one is not there.
    """
    root = everything.path
    if named is not None:
        for place in (root / named, project / Path(named).expanduser()):
            if place.is_file():
                return place
        raise DataError(f"data.labels {named} is neither in {root} nor in the project: name a CSV file with {COLUMNS}")
    folder = everything
    while True:
        usual = folder.path / USUAL
        if usual in folder.others:
            return usual if _header(usual) else None
        if len(folder.folders) != 1:
            return None
        folder = folder.folders[0]


def _header(path: Path) -> bool:
    """Whether a file has the columns: another labels.csv may lie about."""
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        names = _names(next(csv.reader(file, delimiter=_delimiter(path)), []))
    return "path" in names and bool(set(names) & set(LABELS))


def _names(head: Sequence[str]) -> list[str]:
    return [name.strip().casefold() for name in head]


def _delimiter(path: Path) -> str:
    """Spreadsheets write other ones than the comma, as their language has it."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        head = file.readline()
    return max(",;\t", key=head.count)


def rows(path: Path) -> list[Row]:
    """The rows of the file; DataError when it is not such a file."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=_delimiter(path), strict=True)
            names = _names(next(reader, []))
            label = next((name for name in LABELS if name in names), None)
            if "path" not in names or label is None:
                raise DataError(f"{path} has the columns {', '.join(names) or 'none'}: it needs {COLUMNS}")
            found = []
            for values in reader:
                row = dict(zip(names, (value.strip() for value in values), strict=False))
                if any(row.values()):
                    found.append(Row(reader.line_num, row["path"], row.get(label, ""), row.get("split", "")))
            return found
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8 ({error}): save it as one") from None


def read(everything: Folder, file: Path, rename: Mapping[str, str]) -> Plan:
    """How the pictures in a folder are read by the rows of `file`. Paths begin at its folder, or at `everything`."""
    plan = Plan(everything.path, rename)
    base = file.parent if file.is_relative_to(everything.path) else everything.path
    pictures = {nfc(path.relative_to(everything.path).as_posix()): path for path in everything.all_pictures()}
    inside = PurePosixPath(nfc(base.relative_to(everything.path).as_posix()))
    listed = rows(file)
    wrong = _faults(listed)
    chosen: dict[Path, Row] = {}
    for row in listed:
        path = pictures.get(_joined(inside, row.path)) or pictures.get(_joined(PurePosixPath(), row.path))
        if path is None:
            wrong.append(f"line {row.line}: {row.path!r} is no picture in {base}")
        elif chosen.setdefault(path, row).label != row.label:
            wrong.append(f"lines {chosen[path].line} and {row.line} give {row.path!r} two labels")
    if wrong:
        more = f"; and {len(wrong) - SHOWN:,} more" if len(wrong) > SHOWN else ""
        plan.problems.append(f"{file} needs mending: {'; '.join(wrong[:SHOWN])}{more}")
        return plan
    _place(chosen, plan)
    plan.stray(
        (path for path in pictures.values() if path not in chosen),
        f"they are not in {file.name}: add a line for each, or leave them out by data.ignore",
    )
    plan.notes.append(f"{counted(len(chosen), 'label')} from {file}")
    return plan


def _joined(inside: PurePosixPath, path: str) -> str:
    return (inside / nfc(path.replace("\\", "/"))).as_posix()


def _faults(listed: Sequence[Row]) -> list[str]:
    some = any(row.split for row in listed)
    faults = [f"line {row.line} has no label" for row in listed if not row.label]
    faults += [
        f"line {row.line}" + (f": {row.split!r} is no split ({LISTED})" if row.split else " has no split, as others do")
        for row in listed
        if some and split_of(row.split) is None
    ]
    return faults


def _place(chosen: Mapping[Path, Row], plan: Plan) -> None:
    if not chosen:
        return
    shared = os.path.commonpath([path.parent for path in chosen])  # what all have in common is no part of a name
    for path, row in chosen.items():
        plan.add(path, Place(row.label, split_of(row.split) or ""), path.relative_to(shared).parts)
