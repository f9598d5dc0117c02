"""Ctrl-C and termination during a roll-out: the first one ends it, later ones wait until what ran before is back.

CI runners send SIGINT and, 7.5 s later, SIGTERM; a person presses Ctrl-C twice. Neither may cut off putting back.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal ended the roll-out; the message says what became of it."""

    def __init__(self, number: int, outcome: str = "") -> None:
        self.number = number
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        super().__init__(f"interrupted by {name}" + (f"; {outcome}" if outcome else ""))


class Interrupts:
    """Handlers of SIGNALS, and whether they may act now."""

    def __init__(self) -> None:
        self.held = False
        self.deferring = 0
        self.waiting: int | None = None

    def install(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self.arrived)

    def arrived(self, number: int, _frame: FrameType | None = None) -> None:
        if self.held:
            print(
                f"{signal.Signals(number).name}: restoring what ran before, then stopping", file=sys.stderr, flush=True
            )
        elif self.deferring:
            self.waiting = number
        else:
            self.held = True
            raise Interrupted(number)

    def hold(self) -> None:
        """From now on no signal ends the program before it has put back what ran before and recorded it."""
        self.held = True

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """A step that is finished once begun; a signal that arrives meanwhile acts at its end."""
        self.deferring += 1
        try:
            yield
        finally:
            self.deferring -= 1
        if self.waiting is not None and not self.deferring:
            number, self.waiting = self.waiting, None
            self.arrived(number)


interrupts = Interrupts()
