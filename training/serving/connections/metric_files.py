"""The files in which prometheus_client keeps the metrics of each worker, safe from full disks and dead workers.

As it makes them, they have holes: where a full disk has no block for one, the next new series ends the process by
SIGBUS. And each worker has new ones, so that those of the dead pile up. Here the blocks are there before they are
written to, and a worker goes on with the files of the one that it replaces, which takes no more room.
"""

from __future__ import annotations

import os
from pathlib import Path

import prometheus_client.values
from prometheus_client.mmap_dict import MmapedDict

from training.common import disk

SIZE = 1 << 20  # of a file, a sixteenth of it for gauges, which are few; beyond, it doubles
DEAD = "gauge_live"  # how the names of files begin whose values die with their worker


class MetricFile(MmapedDict):
    """What does not fit on the disk stays in memory, unseen by Prometheus, until there is room."""

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        """OSError when there is no room for a new file."""
        if not read_mode:
            _hold(Path(filename))
        try:
            super().__init__(filename, read_mode)
        except (RuntimeError, ValueError):  # damaged
            Path(filename).unlink()
            _hold(Path(filename))
            super().__init__(filename, read_mode)

    def read_value(self, key: str) -> tuple[float, float]:
        try:
            found: tuple[float, float] = super().read_value(key)
        except OSError:
            return 0.0, 0.0
        return found

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        try:
            super().write_value(key, value, timestamp)
        except OSError:
            return  # whoever counts has the value, and writes it again

    def forget(self) -> None:
        """Set every value to 0."""
        for key, *_ in list(self.read_all_values()):
            self.write_value(key, 0.0, 0.0)

    def _init_value(self, key: str) -> None:
        """Add a series. OSError, and no SIGBUS, when the file would have to grow and cannot."""
        needed = self._used + len(key.encode()) + 32  # at most: length, padding, value and time
        if needed > self._capacity:
            disk.hold(self._f.fileno(), self._capacity, 2 * self._capacity)
        super()._init_value(key)


def install(row: int) -> None:
    """Have this process keep its metrics in the files of this row of shared_counters.py. Before any metric is made."""
    prometheus_client.values.MmapedDict = MetricFile  # type: ignore[attr-defined]
    prometheus_client.values.ValueClass = prometheus_client.values.MultiProcessValue(lambda: row)
    forget(row)


def forget(row: int) -> None:
    """Set the gauges of a worker that is gone to 0: they would be added up for ever. Its counters stay."""
    for path in Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob(f"{DEAD}*_{row}.db"):
        file = MetricFile(str(path))
        file.forget()
        file.close()


def _hold(path: Path) -> None:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        size = os.fstat(file).st_size
        disk.hold(file, size, max(size, SIZE // 16 if path.name.startswith("gauge") else SIZE))
    finally:
        os.close(file)
