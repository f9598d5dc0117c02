"""The progress of a command: a bar on a terminal, elsewhere (a log file, CI) a line every few seconds.

There, what takes less than that says nothing.
"""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

INTERVAL_S = 10.0  # between two lines
LINE = "{desc}: {n_fmt} of {total_fmt} {unit}, {rate_fmt}, {remaining} left{postfix}"
OPEN_LINE = "{desc}: {n_fmt} {unit}, {rate_fmt}{postfix}"  # of nobody knows how many


class Bar(tqdm):  # type: ignore[type-arg]
    """tqdm, which writes carriage returns wherever it writes."""

    plain = False
    said: float = 0  # what the last line counted

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.plain = not (options.get("file") or sys.stderr).isatty()
        if self.plain:  # a delay leaves out the first line, which says 0
            options = {"delay": 1e-9, "mininterval": INTERVAL_S, "maxinterval": INTERVAL_S} | options
        super().__init__(*arguments, **options)
        if self.plain and not self.disable:
            self.bar_format = OPEN_LINE if self.total is None else LINE

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        if not self.plain:
            return super().display(msg, pos)
        if self.n > max(self.initial, self.said):
            self.said = self.n
            self.fp.write(f"{msg or self}\n".lstrip())
            self.fp.flush()
        return True

    def close(self) -> None:
        if self.plain and not self.disable:
            self.disable = True  # what tqdm's own close begins with; the rest of it moves a cursor
            self._decr_instances(self)  # type: ignore[attr-defined]
            if self.leave and self.said:
                self.display()
        else:
            super().close()
