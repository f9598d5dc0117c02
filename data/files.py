"""Folders in which one process works at a time, one folder for each class, and what tells that files changed."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from data.errors import DataError

COPIED = 1 << 20  # bytes at once


@contextmanager
def workspace(folder: Path) -> Iterator[Path]:
    """`folder`, made and locked for this process; DataError when another process works there.

    The lock dies with its holder, so a killed run never stands in the way.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            yield folder
    except Timeout:
        raise DataError(f"another process is at work in {folder}: wait until it has ended") from None


def make_folders(root: Path, names: Iterable[str]) -> None:
    """Make folders in `root`, which has none yet; DataError where the file system takes two names for one."""
    for name in names:
        try:
            (root / name).mkdir(parents=True)
        except FileExistsError:
            raise DataError(
                f"{root} takes {name!r} for the name of another class too (upper and lower case, accents): give both "
                "folders one class by data.rename, or rename one of them"
            ) from None


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file; DataError when it is written to meanwhile, or is gone: half of it would be damaged."""
    try:
        with source.open("rb") as file, target.open("wb") as copy:
            before = os.fstat(file.fileno())
            shutil.copyfileobj(file, copy, COPIED)
            after = os.fstat(file.fileno())
    except FileNotFoundError:
        raise DataError(f"{source} went away while its folder was read: run again") from None
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DataError(f"{source} was written to while it was read: run again when it is there in full")


def fingerprint(files: Iterable[tuple[str, Path]]) -> str:
    """Hash of the names, sizes and modification times: another one whenever a file came, went or was written."""
    digest = hashlib.sha256()
    for name, path in sorted(files):
        try:
            stat = path.stat()
        except FileNotFoundError:
            if not path.is_symlink():
                raise DataError(f"{path} went away while its folder was read: run again") from None
            stat = path.lstat()
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
