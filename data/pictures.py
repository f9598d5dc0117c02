"""One picture: decoded in full, made upright RGB of bounded size, and described so that copies of it are found."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.duplicates import difference, normalised
from training.model.picture.header import Limits, PictureError, open_checked
from training.model.picture.values import ValueRange
from training.model.preprocess import orientation, whole

KEPT_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif"}
JPEG_START = b"\xff\xd8"
BOXED_START = b"ftyp"  # from the fifth byte of HEIC and AVIF, which not every browser shows: they become JPEG
POINTER_START = b"version https://git-lfs.github.com/spec/"  # of the text file that stands for a file in Git LFS
POINTER = "lfs_pointer"
WORN_SIDE = 128  # pixels, short side that is enough to wear a picture out; it takes half the time of 512
COLOUR_SIDE = 16  # pixels of the thumbnail that confirms a near duplicate


@dataclass(frozen=True)
class Rules:
    """What `examine` accepts and makes; see section `prepare` of params.yaml."""

    min_side: int
    max_short_side: int
    value_range: ValueRange | None = None


@dataclass(frozen=True)
class Task:
    """One file of data/raw and the class folder its processed picture goes to."""

    source: str
    path: Path
    folder: Path


@dataclass(frozen=True)
class Examined:
    """A good picture, written to `path`.

    `content` is the SHA-256 of its upright RGB pixels in full size, `sha256` that of the processed file, `look` the
    64-bit perceptual hash, `colours` the bytes of uint8 [COLOUR_SIDE, COLOUR_SIDE, 3], `tolerance` how much a near
    duplicate of it may differ (data.duplicates).
    """

    source: str
    path: Path
    content: str
    sha256: str
    width: int
    height: int
    look: int
    colours: bytes
    tolerance: int


@dataclass(frozen=True)
class Refused:
    """A file of data/raw that does not become training data, and why."""

    source: str
    reason: str
    detail: str


def examine(task: Task, rules: Rules) -> Examined | Refused:
    """Check one file and write its processed picture; whatever is wrong with the file becomes a `Refused`."""
    try:
        data = task.path.read_bytes()
    except OSError as error:
        return Refused(task.source, "unreadable", str(error))
    if data.startswith(POINTER_START):
        return Refused(task.source, POINTER, "a Git LFS pointer, not the picture: git lfs pull fetches it")
    try:
        image, plain = decode(data, rules)
    except PictureError as error:
        return Refused(task.source, error.code, str(error))
    content = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
    small = capped(image, rules.max_short_side)
    if plain and small is image:
        suffix = KEPT_SUFFIXES[plain]
    else:
        data, suffix = encode(small, lossy=data.startswith(JPEG_START) or data[4:8] == BOXED_START)
    sha256 = hashlib.sha256(data).hexdigest()
    path = task.folder / (sha256[:16] + suffix)
    path.write_bytes(data)
    seen = colours(small)
    apart = difference(normalised(seen), normalised(colours(worn(small))))
    look = perceptual_hash(small)
    return Examined(task.source, path, content, sha256, *small.size, look, seen.tobytes(), int(apart[0, 0]))


def decode(data: bytes, rules: Rules) -> tuple[Image.Image, str | None]:
    """The upright RGB picture, and its format if the file holds exactly these pixels and nothing else to see.

    PictureError for what the service would refuse too, by the same code.
    """
    image = open_checked(data, Limits(min_side=rules.min_side))
    turned = orientation(image) != 1  # a TIFF forgets it when it is loaded
    animated = image.format != "JPEG" and getattr(image, "is_animated", False)
    plain = image.mode == "RGB" and not (turned or animated or image.has_transparency_data)
    kind = image.format if plain and image.format in KEPT_SUFFIXES else None
    return whole(image, rules.value_range), kind


def capped(image: Image.Image, max_short_side: int) -> Image.Image:
    """The picture with its short side at most `max_short_side`; the same object when it is."""
    scale = max_short_side / min(image.size)
    if scale >= 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def encode(image: Image.Image, lossy: bool) -> tuple[bytes, str]:
    """The file and its suffix: JPEG of high quality for what was JPEG, HEIC or AVIF, else PNG; without any metadata."""
    buffer = io.BytesIO()
    image.info.clear()
    if lossy:
        image.save(buffer, "JPEG", quality=95, subsampling="4:4:4")
        return buffer.getvalue(), ".jpg"
    image.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue(), ".png"


def perceptual_hash(image: Image.Image) -> int:
    """pHash (imagehash.phash): 64 bits that hardly change when a picture is scaled or encoded again."""
    return int(str(imagehash.phash(image)), 16)


def colours(image: Image.Image) -> NDArray[np.uint8]:
    """The picture averaged to COLOUR_SIDE x COLOUR_SIDE pixels, as [1, COLOUR_SIDE * COLOUR_SIDE * 3]."""
    tiny = image.resize((COLOUR_SIDE, COLOUR_SIDE), Image.Resampling.BOX)
    return np.asarray(tiny, dtype=np.uint8).reshape(1, -1)


def worn(image: Image.Image) -> Image.Image:
    """The picture as copies of it get about: cropped by a 64th at two sides, half as large, a JPEG of quality 50."""
    image = image.reduce(max(1, min(image.size) // WORN_SIDE))
    box = (image.width / 64, image.height / 64, image.width, image.height)
    half = image.resize((-(-image.width // 2), -(-image.height // 2)), Image.Resampling.BILINEAR, box)
    buffer = io.BytesIO()
    half.save(buffer, "JPEG", quality=50)
    return Image.open(buffer)
