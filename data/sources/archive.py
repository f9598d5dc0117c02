"""Unpack a zip or tar archive of unknown origin: nothing is written outside the folder, bombs are refused.

An archive that is replaced meanwhile is read to its end as it was, or refused; one that is written over is refused.
"""

from __future__ import annotations

import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Self

from data.errors import DataError
from data.sources.names import member_names
from training.common import disk
from training.common.progress import Bar

PIECE = 1 << 20  # bytes
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError)
ENCRYPTED = 1  # a bit of the flags of a zip's member


EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
LONGEST_HEADER = 1 << 16  # bytes; a path has 4,096
ALL_GLOBAL_HEADERS = 1 << 20  # they hold for all later members, so tarfile keeps them


@dataclass(frozen=True)
class Bounds:
    """What an archive may unpack to. Pictures hardly shrink, so `ratio` is never reached by an honest archive."""

    members: int = 1_000_000
    bytes: int = 1 << 30  # allowed whatever the size of the archive
    ratio: int = 20  # and so many times the size of the archive beyond that


@dataclass(frozen=True)
class Member:
    """A regular file in an archive."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


DEFAULT_BOUNDS = Bounds()


def unpack(archive: Path, folder: Path, encoding: str | None = None, bounds: Bounds = DEFAULT_BOUNDS) -> None:
    """Write the regular files of `archive` into `folder`, which must be empty. `encoding`: data.archive_encoding.

    Raises DataError for a damaged archive, one that changed meanwhile or needs a password, a member that would land
    outside or is a link or a device, or too many members or bytes.
    """
    with archive.open("rb") as file:
        before = _state(file)
        room = bounds.bytes + bounds.ratio * before[0]
        try:
            with Bar(desc=f"unpack {archive.name}", unit="B", unit_scale=True) as progress:
                for number, member in enumerate(_members(archive, file, encoding)):
                    if number >= bounds.members:
                        raise DataError(
                            f"{archive} holds more than {bounds.members} files: it is no archive of pictures"
                        )
                    room -= _write(member, folder / _safe(member.name, archive), room, archive)
                    progress.update(member.size)
        except DataError:
            _check_unchanged(archive, file, before)
            raise
        except NotImplementedError as error:  # of a zip: a kind of compression
            raise DataError(f"{archive} is packed in a way that is not read here ({error}): pack it as usual") from None
        except BROKEN as error:
            if disk.is_full(error):
                raise
            _check_unchanged(archive, file, before)
            raise DataError(f"{archive} is damaged ({error}): get it again") from None
        _check_unchanged(archive, file, before)


def _state(file: IO[bytes]) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns


def _check_unchanged(archive: Path, file: IO[bytes], before: tuple[int, int]) -> None:
    if _state(file) != before:
        raise DataError(f"{archive} was written to while it was read: run again when it is there in full")


def _members(archive: Path, file: IO[bytes], encoding: str | None) -> Iterator[Member]:
    if zipfile.is_zipfile(file):
        return _zip_members(archive, file, encoding)
    try:
        file.seek(0)
        tarfile.open(fileobj=file, tarinfo=_bounded(archive)).close()
    except tarfile.TarError:
        pass
    else:
        return _tar_members(archive, file, encoding)
    raise DataError(f"{archive} is neither a zip nor a tar archive, or it is damaged or not yet there in full")


def _zip_members(archive: Path, file: IO[bytes], encoding: str | None) -> Iterator[Member]:
    with zipfile.ZipFile(file) as opened:
        names = member_names(opened.infolist(), archive, encoding)
        for info, name in zip(opened.infolist(), names, strict=True):
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(archive, name, "is a link or a device")
            if info.flag_bits & ENCRYPTED:
                raise DataError(f"{archive} needs a password: unpack it, and set data.source to folder")
            if info.is_dir():
                _safe(name, archive)
            else:
                yield Member(name, info.file_size, lambda info=info: opened.open(info))  # type: ignore[misc]


def _bounded(archive: Path) -> type[tarfile.TarInfo]:
    """The class of members that refuses an extended header by its size: tarfile would read it into memory whole."""

    class Header(tarfile.TarInfo):
        of_all = 0

        def _proc_member(self, archived: tarfile.TarFile) -> Self:
            """The hook that tarfile's source names for subclasses: between a header and what it announces."""
            if self.type in EXTENDED:
                Header.of_all += self.size if self.type == tarfile.XGLTYPE else 0
                if self.size > LONGEST_HEADER or Header.of_all > ALL_GLOBAL_HEADERS:
                    raise _refused(archive, self.name, f"has a header of {self.size} bytes")
            return super()._proc_member(archived)  # type: ignore[misc,no-any-return]

    return Header


def _tar_members(archive: Path, stream: IO[bytes], encoding: str | None) -> Iterator[Member]:
    stream.seek(0)
    with tarfile.open(fileobj=stream, tarinfo=_bounded(archive), encoding=encoding or "utf-8") as file:
        for info in file:
            if info.isdir():
                _safe(info.name, archive)
            elif info.isreg():
                yield Member(info.name, info.size, lambda info=info: _extracted(file, info))  # type: ignore[misc]
            else:
                raise _refused(archive, info.name, "is a link or a device")
            file.members = []  # type: ignore[attr-defined]  # else every header that was read stays in memory
        _check_end(file)


def _check_end(file: tarfile.TarFile) -> None:
    """tarfile takes an archive cut between two members for a whole one; a whole one ends with empty blocks."""
    if file.fileobj:
        file.fileobj.seek(file.offset)
        if file.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it ends too early")


def _extracted(file: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    stream = file.extractfile(info)
    if stream is None:  # only for what is not a regular file
        raise tarfile.ExtractError(f"{info.name} has no content")
    return stream


def _safe(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name.split("/")[0] or "\0" in name or not path.parts:
        raise _refused(archive, name, "would be written outside the folder")
    return path


def _refused(archive: Path, name: str, why: str) -> DataError:
    return DataError(f"{archive} is refused: its member {name!r} {why}; pack the pictures alone")


def _write(member: Member, path: Path, room: int, archive: Path) -> int:
    """Bytes written to `path`; the size is counted, not believed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    try:
        target = path.open("xb")
    except FileExistsError:
        raise _refused(archive, member.name, "occurs twice") from None
    with target, member.open() as stream:
        while piece := stream.read(PIECE):
            written += len(piece)
            if written > room:
                raise DataError(f"{archive} unpacks to far more than it weighs: refused as an archive bomb")
            target.write(piece)
    return written
