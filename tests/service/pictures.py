"""Pictures of every kind a client may send, and bodies that are none."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image

from tests.tiny import tiny_picture


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def plain(size: tuple[int, int], colour: tuple[int, ...], mode: str = "RGB") -> Image.Image:
    """Of one colour but for a pixel in the corner, which the network does not see: without it nobody takes it."""
    image = Image.new(mode, size, colour)
    image.putpixel((0, 0), tuple(255 - level for level in colour))
    return image


def cat() -> Image.Image:
    """A picture whose mean colour the tiny model calls a cat."""
    return Image.open(io.BytesIO(tiny_picture(0, 7, side=64, noise=0.0))).convert("RGB")


def sideways() -> bytes:
    """JPEG, upper half red once it is turned as its EXIF orientation says."""
    upright = Image.fromarray(
        np.concatenate([np.full((64, 128, 3), (200, 60, 60)), np.full((64, 128, 3), 90)]).astype(np.uint8)
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95)


def good_kinds() -> dict[str, bytes]:
    """Decodable pictures of a cat in every format and mode."""
    image = cat()
    grey = image.convert("L")
    frames = [image, Image.new("RGB", image.size, "green")]
    return {
        "jpeg": encode(image, "JPEG"),
        "progressive": encode(image, "JPEG", progressive=True),
        "png": encode(image, "PNG"),
        "webp": encode(image, "WEBP"),
        "gif": encode(image, "GIF"),
        "bmp": encode(image, "BMP"),
        "tiff": encode(image, "TIFF"),
        "animated gif": encode(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "animated webp": encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True),
        "cmyk jpeg": encode(image.convert("CMYK"), "JPEG", quality=95),
        "palette png": encode(image.quantize(64), "PNG"),
        "alpha png": encode(image.convert("RGBA"), "PNG"),
        "grey alpha png": encode(grey.convert("LA"), "PNG"),
        "16-bit png": encode(Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), "PNG"),
        "float tiff": encode(Image.fromarray(np.asarray(grey).astype(np.float32) / 255), "TIFF"),
        "bilevel png": encode(grey.convert("1"), "PNG"),
        "heic": encode(image, "HEIF"),
        "heic of tiles": heic_of_tiles(image),
        "avif": encode(image, "AVIF"),
    }


def heic_of_tiles(image: Image.Image, side: int = 32) -> bytes:
    """As phones write it: a grid of pictures."""
    pillow_heif.options.GRID_TILE_SIZE = side
    try:
        return encode(image, "HEIF")
    finally:
        pillow_heif.options.GRID_TILE_SIZE = 0


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it has that many pixels, in a hundred bytes."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(b"\0" * 64))
        + _chunk(b"IEND", b"")
    )


def large_but_allowed() -> bytes:
    """A picture of nearly 16 million pixels in a few kilobytes."""
    return encode(plain((4000, 3990), (10, 20, 30, 128), "RGBA"), "PNG")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
