"""The manifest that `prepare` wrote, and the pictures behind it as arrays."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from data.cache import CACHE_FOLDER, stored
from training.common import disk
from training.common.cores import usable_cores
from training.common.errors import ExpectedError
from training.common.files import file_sha256, replacing
from training.common.progress import Bar
from training.model import preprocess
from training.model.picture import header
from training.model.preprocess import Preprocessing, load

MANIFEST_FILE = Path("data/manifest.csv")
PICTURES_FOLDER = Path("data/processed")
COLUMNS = ("path", "class", "split", "sha256", "width", "height", "source", "group", "given")  # others are one's own


class DatasetError(ExpectedError):
    """The prepared data is missing or does not fit; the message names the command that makes it."""


@dataclass(frozen=True)
class Picture:
    """One row of the manifest."""

    path: Path
    label: str
    split: str
    sha256: str
    width: int
    height: int
    source: str
    group: str = ""  # the path of the picture that represents its near duplicates, if it has any
    given: str = ""  # the class that the source gave, if somebody looked at the picture (data/corrections.csv)
    columns: tuple[tuple[str, str], ...] = ()  # of one's own (data/columns.csv), such as the camera


@dataclass(frozen=True)
class Manifest:
    """All prepared pictures, sorted by path."""

    pictures: tuple[Picture, ...]
    sha256: str

    @classmethod
    def read(cls, path: Path = MANIFEST_FILE, folder: Path = PICTURES_FOLDER) -> Manifest:
        """Raises DatasetError when there is no manifest."""
        if not path.is_file():
            raise DatasetError(f"{path} is missing: run `dvc repro prepare` (or `make run`) first")
        with path.open(newline="") as file:
            lines = csv.DictReader(file)
            own = [name for name in lines.fieldnames or () if name not in COLUMNS]
            rows = [
                Picture(
                    folder / row["path"],
                    row["class"],
                    row["split"],
                    row["sha256"],
                    int(row["width"]),
                    int(row["height"]),
                    row["source"],
                    row.get("group", ""),  # manifests of former versions, in the registry, have none
                    row.get("given", ""),
                    tuple((name, row[name]) for name in own),
                )
                for row in lines
            ]
        return cls(tuple(rows), file_sha256(path))

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({picture.label for picture in self.pictures}))

    def split(self, name: str) -> tuple[Picture, ...]:
        """The pictures of one split; DatasetError when it has none."""
        chosen = tuple(picture for picture in self.pictures if picture.split == name)
        if not chosen:
            raise DatasetError(f"the split {name!r} has no pictures: add pictures or change prepare.{name}")
        return chosen

    @cached_property
    def dropped(self) -> tuple[Picture, ...]:
        """Pictures that the source gave to test, and that a correction says to show no class."""
        return tuple(picture for picture in self.pictures if picture.split == "dropped")

    def labels(self, pictures: Sequence[Picture]) -> NDArray[np.int64]:
        """Class indices int64 [N] of `pictures`."""
        index = {name: number for number, name in enumerate(self.classes)}
        return np.array([index[picture.label] for picture in pictures], dtype=np.int64)

    def groups(self, pictures: Sequence[Picture]) -> NDArray[np.int64]:
        """A number for each of `pictures`, int64 [N]: near duplicates have the same, the same in all calls."""
        names = sorted({one.group or str(one.path) for one in self.pictures})
        place = {name: number for number, name in enumerate(names)}
        return np.array([place[one.group or str(one.path)] for one in pictures], dtype=np.int64)

    def test_seen_by(self, former: Manifest) -> tuple[Picture, ...]:
        """The test pictures that a model made from `former` has learnt from or was chosen by.

        There are some where `prepare.test` or `prepare.seed` changed, or a picture moved: such a model answers them
        better than it answers others.
        """
        known = {picture.sha256 for picture in former.pictures if picture.split not in ("test", "dropped")}
        return tuple(picture for picture in self.split("test") if picture.sha256 in known)

    @cached_property
    def test_sha256(self) -> str:
        """Identity of the test split: the hash of its sorted content hashes with their classes."""
        lines = sorted(f"{picture.sha256} {picture.label}\n" for picture in self.split("test"))
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def spread(pictures: Sequence[Picture], count: int) -> tuple[Picture, ...]:
    """At most `count` of the pictures, of each class its share and one at least, evenly spread over the manifest.

    Of fewer pictures than classes, so many classes have one.
    """
    rows: dict[str, list[int]] = {}
    for index, picture in enumerate(pictures):
        rows.setdefault(picture.label, []).append(index)
    count = min(count, len(pictures))
    if count < len(rows):
        rows = {"": [members[0] for members in rows.values()]}
    shares = _shares([len(members) for members in rows.values()], count)
    chosen = (_evenly(members, share) for members, share in zip(rows.values(), shares, strict=True))
    return tuple(pictures[index] for index in sorted(index for indices in chosen for index in indices))


def _shares(sizes: Sequence[int], count: int) -> list[int]:
    """`count` shared out in proportion to `sizes`, one at least to each (largest remainders)."""
    exact = [count * size / sum(sizes) for size in sizes]
    shares = [max(1, math.floor(one)) for one in exact]
    while sum(shares) < count:
        shares[max(range(len(sizes)), key=lambda index: exact[index] - shares[index])] += 1
    while sum(shares) > count:
        shares[max(range(len(sizes)), key=lambda index: shares[index])] -= 1
    return shares


def _evenly(indices: Sequence[int], count: int) -> list[int]:
    return [indices[place] for place in np.linspace(0, len(indices) - 1, count).astype(int)]


def decoded(pictures: Sequence[Picture], how: Preprocessing) -> NDArray[np.uint8]:
    """The pictures as the network sees them, uint8 [N, size, size, 3], mapped from a cache on disk.

    The cache is filled once for the same pictures and preprocessing, with all cores, so memory stays flat.
    """
    path = CACHE_FOLDER / "pictures" / f"{decoded_key(pictures, how)}.npy"
    array: NDArray[np.uint8] = stored(path, lambda path: _fill(path, pictures, how))
    return array


def decoded_key(pictures: Sequence[Picture], how: Preprocessing) -> str:
    """A name of what `decoded` gives: other pictures, preprocessing, code or libraries of it are another name."""
    module = Path(preprocess.__file__)
    code = [file_sha256(path) for path in (module, *sorted(Path(header.__file__).parent.glob("*.py")))]
    names = ("pillow", "simplejpeg", *(["cykooz-resizer"] if preprocess.QUICK else []))
    libraries = [metadata.version(name) for name in names]
    content = "\n".join([repr(how), *code, *libraries, *(picture.sha256 for picture in pictures)])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _fill(path: Path, pictures: Sequence[Picture], how: Preprocessing) -> None:
    def one(number: int) -> NDArray[np.uint8]:
        return load(pictures[number].path.read_bytes(), how)[None]

    with array_writer(path, len(pictures)) as write, ThreadPoolExecutor(usable_cores()) as pool:
        found = pool.map(one, range(len(pictures)))
        for number, array in enumerate(Bar(found, "decode", len(pictures), unit="picture")):
            write(number, array)


@contextmanager
def array_writer(path: Path, count: int) -> Iterator[Callable[[int, NDArray[Any]], None]]:
    """Write an array [count, ...] to the .npy file `path` piece by piece, `write(start, rows)`.

    Pieces go to disk, not to memory, and the file gets its name when all are there. DiskError when they have no room.
    """
    array: np.memmap[Any, np.dtype[Any]] | None = None

    def write(start: int, rows: NDArray[Any]) -> None:
        nonlocal array
        if array is None:
            shape = (count, *rows.shape[1:])
            disk.check_room(part.parent, math.prod(shape) * rows.itemsize)
            array = open_memmap(part, mode="w+", dtype=rows.dtype, shape=shape)
            disk.reserve(part, array.offset)
        array[start : start + len(rows)] = rows

    with replacing(path) as part:
        yield write
        if array is not None:
            array.flush()
