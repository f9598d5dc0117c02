"""A full disk: how it is recognised, and room for a file that is written through memory.

There a full disk would end the process by SIGBUS, without a word.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from training.common.errors import ExpectedError

BLOCK = 1 << 20  # bytes
FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_WORDS = (  # of what raises another error, or one without its number: shutil, NumPy, SQLite
    os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "Not enough free space to write", "database or disk is full",
)  # fmt: skip


class DiskError(ExpectedError):
    """There is no room; the message names the folder and how much is needed."""


def is_full(error: BaseException) -> bool:
    """Whether a full disk is behind `error`, which may have been raised in the handling of the first one."""
    return any(
        getattr(each, "errno", None) in FULL or any(words in str(each) for words in FULL_WORDS)
        for each in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def what_is_full() -> str:
    """One line for a person: how much is free where commands write, and what to do."""
    home = Path(os.environ.get("BENTOML_HOME", "~/bentoml"))
    folders = [Path(), Path(tempfile.gettempdir()), home.expanduser()]
    disks = {folder.stat().st_dev: folder.resolve() for folder in reversed(folders) if folder.is_dir()}
    free = ", ".join(
        f"{_amount(shutil.disk_usage(folder).free)} free in {folder}" for folder in reversed(disks.values())
    )
    return f"the disk is full ({free}): make room and run the command again"


def check_room(folder: Path, size: int) -> None:
    """DiskError when fewer than `size` bytes are free where `folder` is."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DiskError(
            f"{folder.resolve()} needs {_amount(size)}, {_amount(free)} are free: make room and run the command again"
        )


def reserve(path: Path, start: int) -> None:
    """Have the disk keep room for all of the file `path`, of which everything from byte `start` is a hole yet.

    DiskError when there is no room: from then on a write through memory cannot fail for want of it.
    """
    size = path.stat().st_size
    try:
        with path.open("r+b") as file:
            hold(file.fileno(), start, size)
    except OSError as error:
        raise DiskError(
            f"{path.parent.resolve()} has no room for {_amount(size)} ({error.strerror}): make room and run the "
            "command again"
        ) from None


def hold(file: int, start: int, size: int) -> None:
    """Make an open file `size` bytes long, each with its place on the disk, where those from `start` on may have none
    yet and hold nothing. OSError when there is no room."""
    if not _allocate(file, size):
        for position in range(start, size, BLOCK):
            os.pwrite(file, bytes(min(BLOCK, size - position)), position)


def _allocate(file: int, size: int) -> bool:
    """Whether the system and its file system can; macOS lacks the call."""
    if not hasattr(os, "posix_fallocate"):
        return False
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        return False
    return True


def _amount(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
