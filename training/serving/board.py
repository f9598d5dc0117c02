"""What the workers of a service know of one another: a small file that all of them map into memory."""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from enum import IntEnum
from pathlib import Path

JOIN_S = 10.0  # that a worker waits for the row of the one it replaces


class Figure(IntEnum):
    """What a worker tells of itself."""

    CONNECTIONS = 0
    PICTURES = 1  # accepted and not yet answered
    BYTES = 2  # of bodies held in memory


class Board:
    """A row of figures for each worker, of which one is this worker's.

    The row is this worker's as long as it lives: it holds a lock on it, which the system takes back from the dead.
    """

    def __init__(self, path: Path, workers: int) -> None:
        """Take a row; RuntimeError when there are more workers than rows."""
        self.workers = workers
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._row = self._take()
        size = workers * len(Figure) * 8
        if os.fstat(self._file).st_size < size:
            os.ftruncate(self._file, size)
        self._figures = memoryview(mmap.mmap(self._file, size)).cast("q")
        for figure in Figure:
            self._figures[self._place(figure)] = 0

    def add(self, figure: Figure, number: int) -> None:
        """Change a figure of this worker."""
        self._figures[self._place(figure)] += number

    def mine(self, figure: Figure) -> int:
        """The figure of this worker."""
        return self._figures[self._place(figure)]

    def all(self, figure: Figure) -> int:
        """The figures of all workers together."""
        return sum(self._figures[figure :: len(Figure)])

    def least(self, figure: Figure) -> int:
        """The smallest figure of any worker."""
        return min(self._figures[figure :: len(Figure)])

    def _place(self, figure: Figure) -> int:
        return self._row * len(Figure) + figure

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
