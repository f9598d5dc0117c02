"""Metrics on a full disk: no death, nothing lost that memory holds, and all is seen again when there is room."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from training.common import disk
from training.serving.connections import metric_files
from training.serving.connections.metric_files import MetricFile

ROOT = Path(__file__).parents[3]


def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def values(path: Path) -> dict[str, float]:
    return {key: value for key, value, *_ in MetricFile.read_all_values_from_file(str(path))}


def test_every_block_is_there_before_it_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_files, "SIZE", 4096)
    path = tmp_path / "counter_0.db"
    file = MetricFile(str(path))
    for number in range(200):
        file.write_value(f"{number:0100}", float(number), 0.0)
        assert path.stat().st_blocks * 512 >= path.stat().st_size
    assert path.stat().st_size == 8 * 4096
    assert values(path) == {f"{number:0100}": number for number in range(200)}


def test_what_does_not_fit_is_seen_when_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_files, "SIZE", 4096)
    path = tmp_path / "counter_0.db"
    file = MetricFile(str(path))
    with monkeypatch.context() as full:
        full.setattr(disk, "hold", no_room)
        for number in range(200):
            assert file.read_value(f"{number:0100}") == (0.0, 0.0)
            file.write_value(f"{number:0100}", 1.0, 0.0)
        fitted = len(values(path))
        assert 20 < fitted < 40
        file.write_value(f"{0:0100}", 2.0, 0.0)
        assert values(path)[f"{0:0100}"] == 2
    for number in range(200):
        file.write_value(f"{number:0100}", 3.0, 0.0)
    assert values(path) == {f"{number:0100}": 3 for number in range(200)}


def test_a_worker_goes_on_with_the_files_of_the_one_it_replaces(tmp_path: Path) -> None:
    first = MetricFile(str(tmp_path / "counter_0.db"))
    first.write_value("key", 5.0, 0.0)
    first.close()
    again = MetricFile(str(tmp_path / "counter_0.db"))
    assert again.read_value("key") == (5.0, 0.0)


def test_a_damaged_file_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "counter_0.db"
    path.write_bytes(b"\x40\0\0\0\0\0\0\0\xff\xff\xff\x7f" * 100)
    file = MetricFile(str(path))
    file.write_value("key", 5.0, 0.0)
    assert values(path) == {"key": 5}


WORKER = """
import sys
from training.serving.connections import metric_files
metric_files.SIZE = 1 << 16
metric_files.install(0)
from prometheus_client import Counter
counted = Counter("counted", "So many", ["which"])
counted.labels("first").inc()
print("ready", flush=True)
sys.stdin.readline()
for number in range(2000):
    counted.labels(f"{number:0100}").inc()
counted.labels("first").inc()
print("alive", flush=True)
sys.stdin.readline()
for number in range(2000):
    counted.labels(f"{number:0100}").inc()
print("done", flush=True)
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def fill(path: Path) -> None:
    """To the last block."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass


@pytest.mark.needs("mount")
def test_a_full_disk_kills_no_worker(small_disk: Path) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER],
        cwd=ROOT,
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(small_disk)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdin
    assert worker.stdout
    assert worker.stdout.readline() == "ready\n"
    fill(small_disk / "filler")
    worker.stdin.write("\n")
    worker.stdin.flush()
    assert worker.stdout.readline() == "alive\n"
    [path] = small_disk.glob("counter_*.db")
    [first] = [value for key, value in values(path).items() if '"first"' in key]
    assert first == 2
    (small_disk / "filler").unlink()
    worker.communicate("\n")
    assert worker.returncode == 0
    counted = [value for key, value in values(path).items() if "counted_total" in key]
    assert len(counted) > 1000
    assert set(counted) == {2}
