"""Folders in which one process works at a time, one folder for each class, and what tells that files changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from data.errors import DataError


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


def fingerprint(files: Iterable[tuple[str, Path]]) -> str:
    """Hash of the names, sizes and modification times: another one whenever a file came, went or was written."""
    digest = hashlib.sha256()
    for name, path in sorted(files):
        stat = path.stat()
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
