"""Colours of an embedded ICC profile -> sRGB, by LittleCMS.

A profile that changes no colour by more than a level or two is sRGB under one of its many names, and is skipped: what
it does is tried once, on a grid of colours, and remembered. Only numpy and Pillow are imported.
"""

from __future__ import annotations

import functools
import io
import itertools

import numpy as np
from PIL import Image, ImageCms

LONGEST = 1 << 20  # bytes; profiles for printing have about half of it. A longer one is not looked at
KNOWN = 16  # profiles that are remembered
SAME = 2  # levels within which a profile is taken for sRGB: tables and rounding differ that much
SPACES = {"RGB": "RGB", "CMYK": "CMYK", "L": "GRAY"}  # of the modes whose pixels can have a profile
STEPS = (0, 32, 64, 96, 128, 160, 192, 224, 255)


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The picture (RGB, CMYK or L), whose values are meant as the ICC `profile` says, as sRGB.

    The same object where nothing is to do: no profile, one of sRGB, one that fits other pixels, a damaged one.
    """
    if not profile or len(profile) > LONGEST or image.mode not in SPACES:
        return image
    transform = _transform(profile, image.mode)
    return image if transform is None else transform.apply(image)


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
