"""What the workers of a service know of one another: a small file that all of them map into memory."""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from enum import IntEnum
from functools import cache
from pathlib import Path

from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.context import server_context
from bentoml._internal.resource import system_resources

JOIN_S = 10.0  # that a worker waits for the row of the one it replaces


class Figure(IntEnum):
    """What a worker tells of itself."""

    CONNECTIONS = 0
    PICTURES = 1  # accepted and not yet answered
    BYTES = 2  # of bodies held in memory


FIGURES = len(Figure)


class Board:
    """A row of figures for each worker, of which one is this worker's.

    The row is this worker's as long as it lives: it holds a lock on it, which the system takes back from the dead.
    """

    def __init__(self, path: Path, workers: int) -> None:
        """Take a row; RuntimeError when there are more workers than rows."""
        self.workers = workers
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._first = self._take() * FIGURES  # place of this worker's figures
        size = workers * FIGURES * 8
        if os.fstat(self._file).st_size < size:
            os.ftruncate(self._file, size)
        self._figures = memoryview(mmap.mmap(self._file, size)).cast("q")
        self._figures[self._first : self._first + FIGURES] = memoryview(bytes(FIGURES * 8)).cast("q")

    def add(self, figure: Figure, number: int) -> None:
        """Change a figure of this worker."""
        self._figures[self._first + figure] += number

    def mine(self, figure: Figure) -> int:
        """The figure of this worker."""
        return self._figures[self._first + figure]

    def all(self, figure: Figure) -> int:
        """The figures of all workers together."""
        return sum(self._figures[figure::FIGURES])

    def least(self, figure: Figure) -> int:
        """The smallest figure of any worker."""
        return min(self._figures[figure::FIGURES])

    def _take(self) -> int:
        deadline = time.monotonic() + JOIN_S
        while True:
            for row in range(self.workers):
                try:
                    fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, row)
                except OSError:
                    continue
                return row
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.workers} workers serve already, and one more was started")
            time.sleep(0.05)


@cache
def joined() -> Board:
    """The board of the workers of the service that this process serves, with this process among them."""
    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])  # one folder for its workers, which BentoML makes for metrics
    workers: int | str = BentoMLContainer.config.services.get()[server_context.service_name].get("workers") or 1
    count = system_resources()["cpu"] if workers == "cpu_count" else workers  # as BentoML itself counts them
    return Board(folder / "workers.board", max(1, int(count)))
