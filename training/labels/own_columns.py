"""Columns of one's own, data/columns.csv: what people know of pictures beside their class, such as camera or site.

`source` names a picture as data/manifest.csv does; the other columns go into the manifest as they are. Evaluation, gate
and model card show the accuracy of every value, so that a camera on which the model fails does not hide in the mean.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from training.common.errors import ExpectedError
from training.common.table import plain

COLUMNS_FILE = Path("data/columns.csv")
KEY = "source"
SAID = 10  # faults, in one message


class ColumnsError(ExpectedError):
    """A table of columns that cannot be used; the message names the line and its mend."""


@dataclass(frozen=True)
class Columns:
    """The names of the columns, and their values by source."""

    names: tuple[str, ...] = ()
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, source: str) -> tuple[str, ...]:
        """The values of a picture, empty ones where the table does not name it."""
        return self.values.get(source, ("",) * len(self.names))


def read(path: Path, taken: Collection[str], sources: Collection[str]) -> Columns:
    """The table in `path`, none where there is no such file. `taken`: columns that the manifest has anyway; `sources`:
    all pictures of data/raw. ColumnsError for a bad table."""
    if not path.is_file():
        return Columns()
    try:
        lines = csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig")))
    except UnicodeDecodeError:
        raise ColumnsError(f"{path} is not UTF-8: save it as CSV in UTF-8") from None
    head = next(lines, [])
    names = tuple(head[1:])
    if not head or head[0] != KEY:
        raise ColumnsError(f"{path}: the first column must be {KEY}, as in data/manifest.csv")
    if bad := [name for name in names if not name.strip() or name in taken or names.count(name) > 1]:
        raise ColumnsError(
            f"{path}: a column cannot be called {plain(bad[0])!r}: that is empty, or there is one already"
        )
    values: dict[str, tuple[str, ...]] = {}
    faults = []
    for cells in lines:
        if fault := _fault(cells, len(head), values, sources):
            faults.append(f"{path}, line {lines.line_num}: {fault}")
        elif cells:
            values[cells[0]] = tuple(cells[1:])
    if faults:
        more = f"\n... and {len(faults) - SAID} more" if len(faults) > SAID else ""
        raise ColumnsError("\n".join(faults[:SAID]) + more)
    return Columns(names, values)


def _fault(cells: Sequence[str], columns: int, known: Collection[str], sources: Collection[str]) -> str | None:
    if not cells:
        return None
    if len(cells) != columns:
        return f"expected {columns} cells, found {len(cells)}"
    if cells[0] in known:
        return f"{plain(cells[0])} is named twice: keep one of the lines"
    if cells[0] not in sources:
        return f"data/raw has no picture {plain(cells[0])}: remove the line, or bring the picture back"
    return None
