"""Show or empty `.cache`, the bounded cache of what can be computed or downloaded again.

    python -m data.cache           show how much it holds
    python -m data.cache --clean   empty it

CACHE_MAX_GB in the environment is its limit (default 20); the oldest files go first. Files that this process uses are
never deleted, so a run that needs more gets more while it lasts. Files in use elsewhere may go: a process that has one
open keeps it, any other computes it again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.common.command import run_command
from training.common.errors import ExpectedError
from training.common.files import discard

CACHE_FOLDER = Path(".cache")
DEFAULT_GB = 20.0
BUSY_S = 600.0  # a file that was written or read since then may be in use
STARTED = time.time()


class CacheError(ExpectedError):
    """The bound of the cache is no number."""


def stored(path: Path, fill: Callable[[Path], None]) -> NDArray[Any]:
    """The array in the file `path` (.npy) of the cache, mapped. `fill` writes it if it is missing, empty or cut off."""
    found = _read(path)
    if found is None:
        discard(path)
        fill(path)
        found = np.load(path, mmap_mode="r")
        trim(path.parents[1])
    used(path)
    array: NDArray[Any] = found
    return array


def _read(path: Path) -> NDArray[Any] | None:
    try:
        found: NDArray[Any] = np.load(path, mmap_mode="r")
    except (FileNotFoundError, EOFError, ValueError):
        return None
    return found


def used(path: Path) -> None:
    """Remember that a file was of use now, whatever the file system notes of that by itself."""
    with contextlib.suppress(OSError):  # somebody else's cache, or it is gone
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def limit() -> int:
    """How many bytes the cache may hold; CacheError when CACHE_MAX_GB is no number of gigabytes."""
    text = os.environ.get("CACHE_MAX_GB", str(DEFAULT_GB))
    try:
        bound = float(text)
    except ValueError:
        bound = -1.0
    if not 0 <= bound < float("inf"):
        raise CacheError(f"CACHE_MAX_GB is {text!r}: set it to a number of gigabytes, such as {DEFAULT_GB:g}")
    return int(bound * 1e9)


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Time of the last use, bytes and path of each file in a folder of the cache; what lies in `folder` itself, such as
    locks, is not of it."""
    for path in folder.glob("*/**/*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                found = path.stat()
                yield max(found.st_atime, found.st_mtime), found.st_size, path


def trim(folder: Path = CACHE_FOLDER, spared_since: float | None = None) -> int:
    """Delete the files that were used longest ago until the bound is kept; returns how many bytes that were.

    Those used since `spared_since` stay: by default since this process began, or in the last ten minutes.
    """
    since = min(STARTED, time.time() - BUSY_S) if spared_since is None else spared_since
    files = sorted(_files(folder))
    over = sum(size for _, size, _ in files) - limit()
    freed = 0
    for last, size, path in files:
        if freed >= over or last >= since:
            break
        path.unlink(missing_ok=True)
        freed += size
    return freed


def clean(folder: Path = CACHE_FOLDER) -> int:
    """Empty the cache, but for files that somebody is writing; returns how many bytes that were."""
    freed = 0
    for last, size, path in _files(folder):
        if not (path.name.endswith((".part", ".part.json")) and last > time.time() - BUSY_S):
            path.unlink(missing_ok=True)
            freed += size
    return freed


def told(folder: Path = CACHE_FOLDER) -> str:
    """One line for a person."""
    size = sum(size for _, size, _ in _files(folder))
    return f"{folder}: {size / 1e9:.1f} GB of at most {limit() / 1e9:g} (CACHE_MAX_GB); `make clean-cache` empties it"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data.cache", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clean", action="store_true", help="delete what can be computed or downloaded again")
    if parser.parse_args().clean:
        print(f"{CACHE_FOLDER}: {clean() / 1e9:.1f} GB deleted")
    print(told())


if __name__ == "__main__":
    run_command(main)
