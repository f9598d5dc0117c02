"""What the workers of a service know of one another: a small file that all of them map into memory."""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import cache
from pathlib import Path

from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.context import server_context
from bentoml._internal.resource import system_resources

from training.common import disk

JOIN_S = 10.0  # that a worker waits for the row of the one it replaces


class Count(IntEnum):
    """What a worker tells of itself."""

    CONNECTIONS = 0
    PICTURES = 1  # accepted and not yet answered, without those that are slow to decode
    SLOW_PIXELS = 2  # of those
    LISTENING = 3  # 1: it accepts connections


COUNTS = len(Count)


class SharedCounters:
    """A row of figures for each worker, of which one is this worker's.

    The row is this worker's as long as it lives: it holds a lock on it, which the system takes back from the dead.
    """

    def __init__(self, path: Path, workers: int) -> None:
        """Take a row; RuntimeError when there are more workers than rows."""
        self.workers = workers
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self.row = self._take()
        self._first = self.row * COUNTS  # place of this worker's figures
        size = workers * COUNTS * 8
        if os.fstat(self._file).st_size < size:
            disk.hold(self._file, 0, size)  # in a hole on a full disk it would end by SIGBUS
        self._figures = memoryview(mmap.mmap(self._file, size)).cast("q")
        self._forget(self.row)

    def add(self, figure: Count, number: int) -> None:
        """Change a figure of this worker."""
        self._figures[self._first + figure] += number

    def mine(self, figure: Count) -> int:
        """The figure of this worker."""
        return self._figures[self._first + figure]

    def all(self, figure: Count) -> int:
        """The figures of all workers together."""
        return sum(self._figures[figure::COUNTS])

    def fewest_connections(self) -> int:
        """Of any worker that accepts more; many if there is none."""
        rows = zip(self._figures[Count.LISTENING :: COUNTS], self._figures[Count.CONNECTIONS :: COUNTS], strict=True)
        return min((connections for listening, connections in rows if listening), default=sys.maxsize)

    def forget_the_dead(self, also: Callable[[int], None]) -> None:
        """Strike out the figures of workers that were killed, until others take their rows; `also` is called with each
        of these rows."""
        for row in range(self.workers):
            if row != self.row and self._lock(row):
                self._forget(row)
                also(row)
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, row)

    @contextmanager
    def one_worker_at_a_time(self) -> Iterator[None]:
        """What is within is done by one thread of one worker; a worker calls it in one thread only."""
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, self.workers)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self.workers)

    def _forget(self, row: int) -> None:
        first = row * COUNTS
        self._figures[first : first + COUNTS] = memoryview(bytes(COUNTS * 8)).cast("q")

    def _lock(self, row: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, row)
        except OSError:
            return False
        return True

    def _take(self) -> int:
        deadline = time.monotonic() + JOIN_S
        while time.monotonic() < deadline:
            for row in range(self.workers):
                if self._lock(row):
                    return row
            time.sleep(0.05)
        raise RuntimeError(f"{self.workers} workers serve already, and one more was started")


@cache
def shared_counters() -> SharedCounters:
    """The counters of the workers of the service that this process serves, with this process among them."""
    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])  # one folder for its workers, which BentoML makes for metrics
    workers: int | str = BentoMLContainer.config.services.get()[server_context.service_name].get("workers") or 1
    count = system_resources()["cpu"] if workers == "cpu_count" else workers  # as BentoML itself counts them
    return SharedCounters(folder / f"workers-{os.getppid()}.counters", max(1, int(count)))
