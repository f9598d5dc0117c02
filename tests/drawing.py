"""Pictures for tests, each as unlike the others as photographs are: a few big coloured blobs, drawn from a seed."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training.params import Data, Prepare

CLASSES = ("cat", "dog")


def drawing(seed: int, width: int = 48, height: int = 40) -> Image.Image:
    """An RGB picture; equal for equal arguments."""
    blobs = np.random.default_rng(seed).integers(0, 256, (7, 8, 3), dtype=np.uint8)
    return Image.fromarray(blobs).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", orientation: int = 1, **options: Any) -> bytes:
    """The bytes of a picture file, with an EXIF orientation if it is not 1."""
    if orientation != 1:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def class_files(each: int = 4, start: int = 0, prefix: str = "") -> dict[str, bytes]:
    """`cat/0.png` ... and `dog/0.png` ...: `each` pictures in two classes, all different."""
    numbers = range(start, start + each)
    return {
        f"{prefix}{label}/{number}.png": encoded(drawing(1000 * index + number))
        for index, label in enumerate(CLASSES)
        for number in numbers
    }


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write `files` (path in `folder` -> content) and return `folder`."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def read_files(folder: Path) -> dict[str, bytes]:
    """Everything in `folder`: path -> content."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def zipped(path: Path, files: Mapping[str, bytes]) -> Path:
    """A zip archive at `path`."""
    with zipfile.ZipFile(path, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def data_section(**changes: Any) -> Data:
    """Section `data` of params.yaml, from the folder `source` unless told otherwise."""
    values: dict[str, Any] = {"source": "folder", "path": None, "url": "", "sha256": "0" * 64, "kaggle": "a/b"}
    values |= {"labels": None, "ignore": [], "archive_encoding": None, "rename": {}}
    return Data(**(values | changes))


def prepare_section(**changes: Any) -> Prepare:
    """Section `prepare` of params.yaml with large held-out shares, as small tests need."""
    values: dict[str, Any] = {"min_side": 16, "max_short_side": 64, "validation": 0.3, "test": 0.3}
    return Prepare(**(values | {"seed": 0, "value_range": None, "near_duplicate_distance": 6, "workers": 1} | changes))


def scanned(picture: Image.Image, more: int) -> bytes:
    """A progressive JPEG whose last scan comes again `more` times: a few bytes each, and a pass over all pixels."""
    data = encoded(picture, "JPEG", progressive=True)
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * more + data[-2:]


def tiled(size: int, tile: int) -> bytes:
    """A grey TIFF of one deflated tile."""
    body = zlib.compress(bytes(tile * tile), 9)
    tags = [(256, 3, size), (257, 3, size), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1)]
    tags += [(322, 4, tile), (323, 4, tile), (324, 4, 8 + 2 + 12 * 10 + 4), (325, 4, len(body))]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + body
