"""Corrections of labels, data/corrections.csv: a line for each picture that somebody looked at.

`sha256` is that of the manifest, `label` the right class, or `drop` for a picture of none. The class that the source
gave confirms it: the audit asks no more. Whoever corrects a test picture says `yes` in `test`, and why: the test split
measures, and a change of it must be meant.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from training.common.errors import ExpectedError
from training.common.files import write_text
from training.common.table import plain

CORRECTIONS_FILE = Path("data/corrections.csv")
COLUMNS = ("sha256", "label", "who", "why", "test")
DROP = "drop"
SHA256 = re.compile("[0-9a-f]{64}")
SAID = 10  # faults, in one message

Corrections = Mapping[str, "Correction"]  # by SHA-256


class CorrectionError(ExpectedError):
    """Lines of corrections that cannot be applied; the message names each with its mend."""


@dataclass(frozen=True)
class Correction:
    """What `who` says that the picture shows, and `why`; `place` is where it stands, for messages."""

    sha256: str
    label: str
    who: str
    why: str
    test: bool
    place: str

    @property
    def drops(self) -> bool:
        return self.label == DROP


def read(path: Path = CORRECTIONS_FILE) -> dict[str, Correction]:
    """The corrections in `path`, none where there is no such file; CorrectionError names every bad line."""
    if not path.is_file():
        return {}
    try:
        text = path.read_bytes().decode("utf-8-sig")  # spreadsheets put a mark before it
    except UnicodeDecodeError:
        raise CorrectionError(f"{path} is not UTF-8: save it as CSV in UTF-8") from None
    return parse(text, str(path))


def parse(text: str, name: str) -> dict[str, Correction]:
    """The corrections in a CSV text; `name` is what messages call it."""
    lines = csv.reader(io.StringIO(text))
    head = next(lines, [])
    if tuple(head) not in (COLUMNS, COLUMNS[:-1]):
        raise CorrectionError(f"{name} must begin with the line {','.join(COLUMNS)}, found {plain(','.join(head))!r}")
    found: dict[str, Correction] = {}
    faults = []
    for cells in lines:
        place = f"{name}, line {lines.line_num}"
        if not any(cells):
            continue
        fault = _fault(cells, len(head))
        if fault is None and (former := found.get(cells[0])):
            fault = f"{cells[0][:16]} is corrected twice, see {former.place}: keep one of the lines"
        if fault is not None:
            faults.append(f"{place}: {fault}")
        else:
            sha256, label, who, why = cells[:4]
            found[sha256] = Correction(sha256, label, who, why, cells[4:] == ["yes"], place)
    _raise(faults)
    return found


def _fault(cells: Sequence[str], columns: int) -> str | None:
    if len(cells) != columns:
        return f"expected {columns} cells, found {len(cells)}: put quotes around a cell that holds a comma"
    sha256, label, who, why, test = (*cells, "")[:5]
    if not SHA256.fullmatch(sha256):
        return f"{plain(sha256)!r} is no SHA-256: 64 digits of 0-9a-f, as in data/manifest.csv"
    if not label or not who.strip():
        return f"the {'label' if not label else 'name of who says so'} is missing"
    if test not in ("", "yes"):
        return f"column test holds {plain(test)!r}: yes for a picture of the test split, else nothing"
    if test and not why.strip():
        return "a correction of a test picture needs a reason in the column why"
    return None


def check(corrections: Iterable[Correction], classes: Iterable[str], known: Iterable[str]) -> None:
    """Raise CorrectionError for an unknown class or picture; `known`: SHA-256 of all pictures."""
    names, pictures = sorted(classes), set(known)
    if DROP in names:
        raise CorrectionError(f"a class is called {DROP}, a command of corrections: rename it by data.rename")
    faults = [_misfit(one, names, pictures) for one in corrections]
    _raise([fault for fault in faults if fault is not None])


def _misfit(one: Correction, classes: Sequence[str], known: set[str]) -> str | None:
    if one.sha256 not in known:
        return f"{one.place}: no picture has the SHA-256 {one.sha256[:16]}...: remove the line, or bring it back"
    if not one.drops and one.label not in classes:
        near = difflib.get_close_matches(one.label, classes, n=1, cutoff=0.0)
        return f"{one.place}: no class {plain(one.label)!r}, nearest: {near[0]!r} (or {DROP})"
    return None


def check_test(corrections: Iterable[Correction], test: Iterable[str]) -> None:
    """Raise CorrectionError for a test picture that is not said to be one; `test`: SHA-256 of those in the split."""
    measuring = set(test)
    _raise(
        [
            f"{one.place}: {one.sha256[:16]}... is a test picture, and a correction changes what models are measured "
            "by. If that is meant, say yes in the column test, and why"
            for one in corrections
            if one.sha256 in measuring and not one.test
        ]
    )


def _raise(faults: Sequence[str]) -> None:
    if faults:
        more = f"\n... and {len(faults) - SAID} more" if len(faults) > SAID else ""
        raise CorrectionError("\n".join(faults[:SAID]) + more)


def text_of(corrections: Iterable[Correction]) -> str:
    """The same as CSV, with its first line."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in corrections:
        writer.writerow([*astuple(one)[:4], "yes" if one.test else ""])
    return file.getvalue()


def add(new: Corrections, path: Path = CORRECTIONS_FILE) -> int:
    """Write `new` to the end of `path`; a later word about a picture takes the place of a former one. Returns how many
    lines are new or changed."""
    former = read(path)
    kept = [one for sha256, one in former.items() if sha256 not in new]
    write_text(path, text_of([*kept, *new.values()]))
    return sum(astuple(former[sha])[:5] != astuple(one)[:5] if sha in former else True for sha, one in new.items())
