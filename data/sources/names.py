"""The names of a zip's members. Whoever packs is to mark names as UTF-8, and Windows and old programs do not.

The rule: a marked name is UTF-8, and one that has it in an extra field (Info-ZIP's Unicode Path) is that. Of the others
all are in data.archive_encoding; where that is null, in UTF-8 if every one of them can be (macOS packs so), and else in
cp437, as the format has it. One rule for all of an archive: a short name in GBK may look like UTF-8 too. A marked name
with characters that draw boxes was read as cp437 by the program that marked it, and counts as not marked.
"""

from __future__ import annotations

import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from data.errors import DataError
from training.common.table import plain

UTF8 = 0x800  # a bit of the flags
UNICODE_PATH = 0x7075  # of an extra field
FORMAT = "cp437"  # of names, as the format has it; it has a character for each byte
BOXES = re.compile("[\u2500-\u259f]")
SHOWN = 3


def member_names(infos: Sequence[zipfile.ZipInfo], archive: Path, encoding: str | None) -> list[str]:
    """The names of all members, in order; a line on stderr says if they had to be guessed.

    DataError when they are not in `encoding` (data.archive_encoding).
    """
    known = [_marked(info) for info in infos]
    unmarked = [_raw(info) for info, name in zip(infos, known, strict=True) if name is None]
    chosen = encoding or ("utf-8" if all(_is_utf8(raw) for raw in unmarked) else FORMAT)
    try:
        names = [name or _raw(info).decode(chosen) for info, name in zip(infos, known, strict=True)]
    except UnicodeDecodeError as error:
        raise DataError(
            f"{archive}: its member {error.object!r} is not written in {chosen}: set data.archive_encoding to another"
        ) from None
    if unmarked and not encoding:
        shown = ", ".join(repr(raw.decode(chosen)) for raw in unmarked[:SHOWN])
        print(
            f"warning: {archive} does not say how {len(unmarked)} of its names are written: read as {chosen} "
            f"({plain(shown)}). If they are not as they should be, set data.archive_encoding, to gbk for example",
            file=sys.stderr,
        )
    return names


def _raw(info: zipfile.ZipInfo) -> bytes:
    return info.orig_filename.encode(FORMAT)


def _marked(info: zipfile.ZipInfo) -> str | None:
    """The name of a member if it is beyond doubt."""
    name = info.orig_filename
    if name.isascii() or (info.flag_bits & UTF8 and not (BOXES.search(name) and _is_encodable(name))):
        return name
    return next(_unicode_paths(info), None)


def _unicode_paths(info: zipfile.ZipInfo) -> Iterator[str]:
    """What fields for it say, where they belong to this name: a program that renames may leave the former one."""
    rest = info.extra
    while len(rest) >= 4:
        kind, size = struct.unpack("<HH", rest[:4])
        field, rest = rest[4 : 4 + size], rest[4 + size :]
        if kind == UNICODE_PATH and len(field) > 5 and field[1:5] == struct.pack("<L", zlib.crc32(_raw(info))):
            yield field[5:].decode("utf-8", "replace")


def _is_encodable(name: str) -> bool:
    try:
        name.encode(FORMAT)
    except UnicodeEncodeError:
        return False
    return True


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
