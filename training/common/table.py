"""Text and tables for people, on the command line."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # categories of Unicode: control, format, surrogates, separators of lines
JOINERS = "\u200c\u200d"  # letters of some scripts, and pictures, are spelt with them


def plain(text: object, keep: str = "") -> str:
    """`text` with what a terminal would obey (escape sequences, lines, changes of direction) shown, not done.

    The characters in `keep` stay. For every string that others may have written: tags, cards, names.
    """
    return "".join(
        one if one in keep or one in JOINERS or unicodedata.category(one) not in HIDDEN else ascii(one)[1:-1]
        for one in str(text)
    )


def records(rows: Sequence[Sequence[str]]) -> list[dict[str, str | None]]:
    """The same rows for programs: the head's words, joined by underscores, are the keys; `-` and nothing are null."""
    keys = [name.replace(" ", "_") for name in rows[0]]
    return [{key: None if cell in ("", "-") else cell for key, cell in zip(keys, row, strict=True)} for row in rows[1:]]


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows as text, each column as wide as it needs; see `plain`."""
    rows = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
