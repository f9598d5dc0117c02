"""The progress of a command: a bar on a terminal, elsewhere (a log file, CI) a line every few seconds.

There, what takes less than that says nothing.
"""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

INTERVAL_S = 10.0  # between two lines
COUNT = "{n_fmt} of {total_fmt} {unit}, {remaining} left{postfix}"
BAR, LINE = "{desc}: {percentage:3.0f}%|{bar}| " + COUNT, "{desc}: " + COUNT
OPEN_LINE = "{desc}: {n_fmt} {unit}, {rate_fmt}{postfix}"  # the total is not known


class Bar(tqdm):  # type: ignore[type-arg]
    """tqdm that says what it counts and when it will end, and writes no carriage returns to a file.

    `unit` is singular: "picture" is shown as "pictures". With `unit_scale` (bytes) it stays as it is.
    """

    plain = False
    said: float = 0  # what the last line counted

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.plain = not (options.get("file") or sys.stderr).isatty()
        if self.plain:  # a delay leaves out the first line, which says 0
            options = {"delay": 1e-9, "mininterval": INTERVAL_S, "maxinterval": INTERVAL_S} | options
        scaled = bool(options.get("unit_scale"))
        if "unit" in options and not scaled:
            options["unit"] += "es" if options["unit"] == "batch" else "s"
        super().__init__(*arguments, **options)
        if self.disable:
            return
        if self.plain:
            self.bar_format = OPEN_LINE if self.total is None else LINE
        elif self.total is not None and not scaled:
            self.bar_format = BAR

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
