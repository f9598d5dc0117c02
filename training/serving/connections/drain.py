"""Going down without losing a request: on SIGTERM readiness says no first, and the port closes a moment later."""

from __future__ import annotations

import asyncio
import signal
from types import FrameType


class Drain:
    """`began` is true from SIGTERM on; the server's own handler, which stops accepting, runs `seconds` later."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.began = False

    def install(self) -> None:
        """Stand before the server's own handler of SIGTERM. Call it on the event loop, in the main thread."""
        loop = asyncio.get_running_loop()
        stop = signal.getsignal(signal.SIGTERM)
        if not callable(stop):
            return

        def begin(number: int, _frame: FrameType | None) -> None:
            again, self.began = self.began, True
            delay = 0.0 if again else self.seconds
            loop.call_soon_threadsafe(loop.call_later, delay, stop, number, None)

        signal.signal(signal.SIGTERM, begin)
