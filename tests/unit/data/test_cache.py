from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data import cache
from data.cache import CacheError, clean, limit, main, stored, told, trim, used
from tests.drawing import read_files, write_files


def fill(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.arange(6.0))


def test_an_array_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "features/a.npy"
    assert stored(path, fill).tolist() == [0, 1, 2, 3, 4, 5]
    changed = path.stat().st_mtime_ns

    def never(_: Path) -> None:
        raise AssertionError

    assert stored(path, never).tolist() == [0, 1, 2, 3, 4, 5]
    assert path.stat().st_mtime_ns == changed


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"\0" * 200, None])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "features/a.npy"
    fill(path)
    path.write_bytes(path.read_bytes()[:-1] if damage is None else damage)
    assert stored(path, fill).tolist() == [0, 1, 2, 3, 4, 5]
    assert np.load(path).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.fixture
def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of four files of 1 kB, one used an hour after the other, and a lock that is not of it."""
    names = ("scores/1", "features/2", "downloads/x/3", "pictures/4")
    write_files(tmp_path / ".cache", dict.fromkeys(names, bytes(1000)) | {"registry.lock": b"x"})
    for hours, name in enumerate(names):
        os.utime(tmp_path / ".cache" / name, (hours * 3600, 0))
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".cache"


def test_the_oldest_go_first(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHE_MAX_GB", "0.0000025")
    assert trim(full) == 2000
    assert set(read_files(full)) == {"downloads/x/3", "pictures/4", "registry.lock"}
    assert trim(full) == 0


def test_what_was_used_stays(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHE_MAX_GB", "0")
    used(full / "scores/1")
    assert trim(full) == 3000
    assert set(read_files(full)) == {"scores/1", "registry.lock"}
    assert trim(full, spared_since=time.time() + 1) == 1000


def test_a_new_array_makes_the_cache_keep_its_bound(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHE_MAX_GB", "0.000002")
    stored(full / "features/new.npy", fill)
    assert set(read_files(full)) == {"features/new.npy", "pictures/4", "registry.lock"}


@pytest.mark.parametrize("text", ["much", "-1", "inf", "nan"])
def test_a_bound_that_is_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("CACHE_MAX_GB", text)
    with pytest.raises(CacheError, match=f"CACHE_MAX_GB is '{text}': set it to a number of gigabytes, such as 20"):
        limit()


def test_is_told_and_cleaned(full: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("CACHE_MAX_GB", raising=False)
    write_files(full, {"downloads/a.zip.part": b"half"})
    line = ".cache: 0.0 GB of at most 20 (CACHE_MAX_GB); `make clean-cache` empties it"
    assert told() == line
    monkeypatch.setattr(sys, "argv", ["cache", "--clean"])
    main()
    assert capsys.readouterr().out.splitlines() == [".cache: 0.0 GB deleted", line]
    assert set(read_files(full)) == {"downloads/a.zip.part", "registry.lock"}
    monkeypatch.setattr(cache, "BUSY_S", -1.0)
    assert clean() == 4
