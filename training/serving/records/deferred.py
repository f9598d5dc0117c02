"""Work that can wait, done for many at once by a thread of its own.

Between two runs of the network nothing of Python is in the processor's caches: what is done for each answer costs three
times what it costs in a row. So the answer goes first, and what is only kept of it is done a moment later for all.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

EVERY_S = 0.1  # between looks
WAITING = 10_000  # items; beyond it they are lost

log = logging.getLogger("bentoml.later")
_Item = TypeVar("_Item")


class Deferred(Generic[_Item]):
    """Gives what is added to `work`, many at a time; what is too much, and what `work` failed on, to `lost`, one at a
    time. Thread-safe."""

    def __init__(self, name: str, work: Callable[[list[_Item]], None], lost: Callable[[_Item], None]) -> None:
        self._work, self._lost = work, lost
        self._items: deque[_Item] = deque()
        self._working = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work_on, name=name, daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: _Item) -> None:
        """Have it worked on soon."""
        if len(self._items) < WAITING:
            self._items.append(item)
        else:
            self._lost(item)

    def flush(self) -> None:
        """Work on what was added so far; an error is told in the log, it costs neither an answer nor what follows."""
        with self._working:
            items = [self._items.popleft() for _ in range(len(self._items))]
            if not items:
                return
            try:
                self._work(items)
            except Exception:
                log.exception("%s: some of what was to be kept is lost", self._thread.name)
                for item in items:
                    self._lost(item)

    def close(self) -> None:
        """Work on the rest, and stop."""
        self._closing.set()
        self._thread.join()

    def _work_on(self) -> None:
        while not self._closing.wait(EVERY_S):
            self.flush()
        self.flush()
