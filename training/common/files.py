"""Files and folders that appear whole or not at all, and the hash of a file."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; at the end of the block that file takes the place of `path` in one step.

    A reader sees the former file or the new one. If the block raises, the former file stays and the new one is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one step. A file that holds this text already is left alone, with its time of change."""
    data = text.encode()
    if path.is_file() and path.read_bytes() == data:
        return
    with replacing(path) as part:
        part.write_bytes(data)


def discard(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def fresh(folder: Path) -> Path:
    """`folder`, empty."""
    discard(folder)
    folder.mkdir(parents=True)
    return folder


def swap(staged: Path, final: Path) -> None:
    """Put the folder `staged` in the place of `final`. Killed midway, `final` is the former, the new, or missing."""
    former = staged.with_name(staged.name + ".old")
    discard(former)
    if final.exists() or final.is_symlink():
        final.rename(former)
    staged.rename(final)
    discard(former)
