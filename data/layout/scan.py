"""What lies in a folder: pictures, files that are none, and folders."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

from data.errors import DataError

SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".hif", ".avif"]
)
# Pictures too, which nothing here reads: to leave them out in silence would be to lose them.
UNREAD = frozenset(
    [
        *(".jxl", ".jp2", ".psd", ".svg", ".eps", ".tga", ".ppm", ".pgm", ".dcm"),
        *(".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".rw2", ".raf"),  # of cameras
    ]
)
OF_SYSTEMS = frozenset(("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"))
STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8")  # of pictures whose names do not say that they are some


@dataclass(frozen=True)
class Folder:
    """What one folder holds, and what its folders hold. `unread` are pictures that cannot be read, with the reason;
    hidden files are among `others`, hidden folders and those of systems (`__MACOSX`) are passed over."""

    path: Path
    pictures: list[Path]
    unread: list[tuple[Path, str]]
    others: list[Path]
    folders: list[Folder]

    def filled(self) -> list[Folder]:
        """The folders in it that hold pictures, at whatever depth."""
        return [child for child in self.folders if child.has_pictures()]

    def has_pictures(self) -> bool:
        return bool(self.pictures) or any(child.has_pictures() for child in self.folders)

    def walk(self) -> Iterator[Folder]:
        """The folder itself and all below it."""
        yield self
        for child in self.folders:
            yield from child.walk()

    def all_pictures(self) -> list[Path]:
        return [path for folder in self.walk() for path in folder.pictures]

    def files(self) -> list[Path]:
        """Every file, also those that are no pictures."""
        return [
            path
            for folder in self.walk()
            for path in (*folder.pictures, *(path for path, _ in folder.unread), *folder.others)
        ]


def scan(root: Path, ignore: Sequence[str] = ()) -> Folder:
    """All that is in `root` but what a pattern of `ignore` fits: a name (`*.nef`, `test1`) or a path below `root`.

    DataError for a folder that cannot be read. Links to folders are followed, those to a folder above are not.
    """
    return _scan(root, PurePath(), frozenset(), ignore)


def _scan(path: Path, inside: PurePath, above: frozenset[str], ignore: Sequence[str]) -> Folder:
    found = Folder(path, [], [], [], [])
    above = above | {os.path.realpath(path)}
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): let this user read it, or move it away") from None
    for entry in entries:
        child, here = Path(entry.path), inside / entry.name
        if any(fnmatchcase(entry.name, one) or fnmatchcase(here.as_posix(), one.rstrip("/")) for one in ignore):
            continue
        if not entry.is_dir():
            _sort(child, entry, found)
        elif not (entry.name.startswith(".") or entry.name in OF_SYSTEMS or os.path.realpath(child) in above):
            found.folders.append(_scan(child, here, above, ignore))
    return found


def _sort(path: Path, entry: os.DirEntry[str], found: Folder) -> None:
    suffix = path.suffix.lower()
    if entry.name.startswith("."):
        found.others.append(path)
    elif not entry.is_file():
        if suffix in SUFFIXES and entry.is_symlink():
            found.unread.append((path, "a link that leads nowhere: mend it"))
        else:
            found.others.append(path)
    elif suffix in SUFFIXES or (suffix not in UNREAD and _is_picture(path)):
        found.pictures.append(path)
    elif suffix in UNREAD:
        found.unread.append((path, f"{suffix} is not read here: convert it to JPEG or PNG"))
    else:
        found.others.append(path)


def _is_picture(path: Path) -> bool:
    """Whether the first bytes are those of a picture: names without a suffix, or with another one, are common."""
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return False
            start = file.read(12)
    except OSError:
        return False
    return start.startswith(STARTS) or (start[:4], start[8:]) == (b"RIFF", b"WEBP")
