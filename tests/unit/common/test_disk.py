"""A disk without room for a mapped array: one clear line, never SIGBUS, and nothing half-written."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data.manifest import array_writer
from training.common import disk
from training.common.disk import DiskError

ROWS = np.ones((2, 1 << 20), np.uint8)


@pytest.fixture
def small_files() -> Iterator[None]:
    """Files of at most 1 MB may be written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write(path: Path) -> None:
    with array_writer(path, len(ROWS)) as rows:
        rows(0, ROWS)


def test_too_little_room_is_said_before_a_byte_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=2_000_000))
    with pytest.raises(DiskError, match=r"needs 2\.1 MB, 2\.0 MB are free: make room"):
        write(tmp_path / "a.npy")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lacking", [False, True])
def test_all_of_the_file_has_its_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: bool) -> None:
    if lacking:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    path = tmp_path / "a"
    path.write_bytes(b"head")
    os.truncate(path, 3 << 20)
    disk.reserve(path, 4)
    assert path.stat().st_blocks * 512 >= 3 << 20
    assert path.stat().st_size == 3 << 20
    assert path.read_bytes()[:5] == b"head\0"


def test_a_hole_that_cannot_be_filled_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.touch()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(DiskError, match=r"has no room for .* \(No space left\): make room and run"):
        disk.reserve(path, 0)


@pytest.mark.usefixtures("small_files")
def test_an_array_without_room_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File too large"):
        write(tmp_path / "a.npy")
    assert not list(tmp_path.iterdir())
