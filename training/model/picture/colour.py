"""Colours of an embedded ICC profile -> sRGB, by LittleCMS.

A profile that changes no colour by more than a level or two is sRGB under one of its many names, and is skipped: what
it does is tried once, on a grid of colours, and remembered. Only numpy and Pillow are imported.
"""

from __future__ import annotations

import functools
import io
import itertools
import struct

import numpy as np
from PIL import Image, ImageCms

LONGEST = 1 << 20  # bytes; profiles for printing have about half of it. A longer one is not looked at
KNOWN = 16  # profiles that are remembered
SAME = 2  # levels within which a profile is taken for sRGB: tables and rounding differ that much
SPACES = {"RGB": "RGB", "CMYK": "CMYK", "L": "GRAY"}  # of the modes whose pixels can have a profile
WHITE = (0.9642, 1.0, 0.8249)  # D50
WIDE = {  # by their number in ITU-T H.273: red, green and blue as XYZ (D50)
    9: ((0.6735, 0.2790, -0.0019), (0.1657, 0.6753, 0.0300), (0.1251, 0.0456, 0.7969)),  # BT.2020
    12: ((0.5151, 0.2412, -0.0011), (0.2919, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)),  # Display P3
}
STEPS = (0, 32, 64, 96, 128, 160, 192, 224, 255)


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The picture (RGB, CMYK or L), whose values are meant as the ICC `profile` says, as sRGB.

    The same object where nothing is to do: no profile, one of sRGB, one that fits other pixels, a damaged one.
    """
    transform = _transform(profile, image.mode) if profile and changes(profile, image.mode) else None
    return image if transform is None else transform.apply(image)


def changes(profile: bytes | None, mode: str) -> bool:
    """Whether `to_srgb` has anything to do for pixels of this mode."""
    if not profile or len(profile) > LONGEST or mode not in SPACES:
        return False
    return _transform(profile, mode) is not None


@functools.cache
def wide_gamut(primaries: int) -> bytes | None:
    """An ICC profile of these colour primaries (ITU-T H.273) with the curve of sRGB; None if they are its own."""
    return _profile(WIDE[primaries]) if primaries in WIDE else None


def _profile(columns: tuple[tuple[float, float, float], ...]) -> bytes:
    """Three primaries as XYZ (D50), and a curve of 1,024 steps (ICC.1:2001-04)."""

    def numbers(values: tuple[float, ...]) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    share = np.linspace(0, 1, 1024)
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    curve: bytes = b"curv" + struct.pack(">II", 0, len(share)) + np.rint(linear * 65535).astype(">u2").tobytes()
    names = (b"rXYZ", b"gXYZ", b"bXYZ")
    tags = {b"wtpt": b"XYZ \0\0\0\0" + numbers(WHITE)}
    tags |= {name: b"XYZ \0\0\0\0" + numbers(column) for name, column in zip(names, columns, strict=True)}
    start, index = 128 + 4 + 12 * (len(tags) + 3), b""
    body = b"".join(tags.values()) + curve
    place = start
    for name, content in tags.items():
        index += name + struct.pack(">II", place, len(content))
        place += len(content)
    for name in (b"rTRC", b"gTRC", b"bTRC"):
        index += name + struct.pack(">II", place, len(curve))
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"\0" * 4, 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + numbers(WHITE)
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags) + 3) + index + body


@functools.lru_cache(KNOWN)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != SPACES[mode]:
            return None
        flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        transform = ImageCms.ImageCmsTransform(source, target, mode, "RGB", intent, flags=flags)
        return None if mode != "CMYK" and _changes_nothing(transform, mode) else transform
    except (OSError, ValueError, ImageCms.PyCMSError):  # viewers show such a picture without its profile
        return None


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    grid = np.array(list(itertools.product(STEPS, repeat=len(mode))), np.uint8).reshape(1, -1, len(mode))
    before = Image.fromarray(grid[:, :, 0] if mode == "L" else grid)
    after = np.asarray(transform.apply(before), np.int16)
    return bool(np.abs(after - np.asarray(before.convert("RGB"), np.int16)).max() <= SAME)
