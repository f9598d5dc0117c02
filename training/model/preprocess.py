"""The seam between training and serving: the bytes of a picture -> the array the network sees.

Training, evaluation, the gate, drift checks and the service all call `load`, so a picture is never seen in two ways.
Only numpy, Pillow and two libraries that are quicker at what they do are imported: this module travels into the Bento.
simplejpeg decodes to the same pixels in three quarters of the time; cykooz-resizer resizes with the same filters in a
fifth, to the same pixels within rounding (bicubic, which overshoots, at sharp edges to within a few levels). Where it
is not installed, Pillow resizes: it has no wheel for Linux on arm64.
"""

from __future__ import annotations

import io
import math
import threading
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

try:
    import cykooz_resizer as quick
except ModuleNotFoundError:
    quick = None

QUICK = quick is not None

# The limit on pixels is ours (Limits.max_pixels), checked on the header; Pillow's own only warns and is per process.
Image.MAX_IMAGE_PIXELS = None

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
SCANS = 10  # of a progressive JPEG as encoders make it; each is a pass over all of its pixels
BACKGROUND = (255, 255, 255)  # what shows through transparent pixels
MARGIN = 8  # pixels around the middle square that the filter may look at: its support, as nothing shrinks by half here


class PictureError(ValueError):
    """These bytes are not a picture that can be classified.

    `code` is one of empty, not_an_image, unsupported_format, too_many_pixels, too_small, extreme_aspect, corrupt;
    `hint` says what would be accepted.
    """

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


@dataclass(frozen=True)
class Limits:
    """What is accepted before a single pixel is decoded."""

    max_pixels: int = 50_000_000
    min_side: int = 8
    max_aspect: float = 20.0
    formats: tuple[str, ...] = FORMATS


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the network's input: short side to `resize`, the middle `size` x `size` square of it.

    `shrink` is the filter for pictures that become smaller: bicubic, or bilinear, as accurate there at half the work.
    Smaller ones are enlarged by bicubic: bilinear blurs them, and costs 2 points of accuracy on pictures of 32 x 32.
    """

    size: int = 224
    resize: int = 256
    shrink: Literal["bicubic", "bilinear"] = "bicubic"


DEFAULT_LIMITS = Limits()


def load(data: bytes, how: Preprocessing, limits: Limits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """The network's input, uint8 [size, size, 3] in RGB, of the bytes of one picture; PictureError if it is not one.

    Normalisation is part of the network. A JPEG is decoded at the smallest scale that still covers `resize`, and a
    picture is turned upright after it was made small: the middle square is the same and both are many times quicker.
    """
    return shrink(open_checked(data, limits), how, data)


def shrink(image: Image.Image, how: Preprocessing, data: bytes | None = None) -> NDArray[np.uint8]:
    """The second half of `load`: the opened picture decoded and made the network's input; PictureError if damaged.

    `data` are the bytes that `image` was opened from: with them a JPEG is decoded sooner, to the same pixels.
    """
    try:
        _draft(image, how)
        pixels = None if data is None else _quickly_decoded(image, data)
        small = _middle_square(flatten(image), how) if pixels is None else _middle_square_of(pixels, how)
        return _turned(small, _orientation(image))
    except Exception as error:  # decoders raise whatever a damaged file makes them stumble over
        raise _corrupt(error) from None


def _draft(image: Image.Image, how: Preprocessing) -> None:
    """Have Pillow decode a JPEG at the smallest scale that still covers `resize`."""
    scale = how.resize / min(image.size)
    if image.format == "JPEG" and scale < 1:
        image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))


def _quickly_decoded(image: Image.Image, data: bytes) -> NDArray[np.uint8] | None:
    """RGB [h, w, 3] of a JPEG, or None where Pillow must: at a smaller scale, not in colour, not quite in order."""
    if image.format != "JPEG" or image.mode != "RGB" or scans(data) > 2 * SCANS:
        return None
    try:
        if simplejpeg.decode_jpeg_header(data)[1::-1] != image.size:
            return None
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")
    except (ValueError, KeyError):  # KeyError: a subsampling that it has no name for
        return None
    return pixels


def open_checked(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """The picture with its header read and checked against `limits`; its pixels are not decoded yet."""
    if not data:
        raise PictureError("empty", "the picture has no bytes", "send the bytes of a picture file")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.format == "MPO":  # a JPEG with further pictures behind it, as many phones write them
            image.format = "JPEG"
    except UnidentifiedImageError:
        hint = f"send one of {', '.join(limits.formats)}"
        raise PictureError("not_an_image", "these bytes are not a picture that can be read", hint) from None
    except Exception as error:  # as in `shrink`
        raise _corrupt(error) from None
    _check_header(image, limits)
    if work(image, data) > limits.max_pixels:
        message = f"the picture has {image.width} x {image.height} pixels, and {work(image, data)} would be decoded"
        raise PictureError("too_many_pixels", message, "save it anew: its scans or tiles are out of proportion")
    return image


def work(image: Image.Image, data: bytes) -> int:
    """Pixels that are decoded to see the opened picture. A file may want more of them than it shows: a TIFF by tiles
    larger than the picture, a JPEG by scan after scan over the same pixels."""
    pixels = image.width * image.height
    if image.format == "JPEG":
        return pixels * max(1, scans(data) // SCANS)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        sides = [image.tag_v2.get(tag, 0) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)]
        if all(isinstance(side, int) for side in sides):
            return max(pixels, int(math.prod(sides)))
    return pixels


def scans(data: bytes) -> int:
    """Scans of a JPEG, with those of pictures embedded in it: their marker stands nowhere else."""
    return data.count(b"\xff\xda")


def _check_header(image: Image.Image, limits: Limits) -> None:
    width, height = image.size
    if image.format not in limits.formats:
        hint = f"send one of {', '.join(limits.formats)}"
        raise PictureError("unsupported_format", f"{image.format} pictures are not accepted", hint)
    if width * height > limits.max_pixels:
        hint = f"send at most {limits.max_pixels} pixels"
        raise PictureError("too_many_pixels", f"the picture has {width} x {height} pixels", hint)
    if min(width, height) < limits.min_side:
        hint = f"send at least {limits.min_side} pixels on the short side"
        raise PictureError("too_small", f"the picture has {width} x {height} pixels", hint)
    if max(width, height) > limits.max_aspect * min(width, height):
        hint = f"the long side may be {limits.max_aspect:g} times the short side at most"
        raise PictureError("extreme_aspect", f"the picture has {width} x {height} pixels", hint)


def _corrupt(error: Exception) -> PictureError:
    return PictureError("corrupt", f"the picture cannot be decoded: {error}", "send a complete, undamaged file")


def flatten(image: Image.Image) -> Image.Image:
    """The decoded pixels as RGB: transparency over white, 16-bit and floating-point grey scaled to 8 bits."""
    if image.mode == "RGB" and not image.has_transparency_data:
        image.load()
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(image).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGB", image.size, BACKGROUND)
        ground.paste(image, mask=image.getchannel("A"))
        return ground
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.float64)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    top = 65535.0 if image.mode.startswith("I") else 1.0 if values.max(initial=0.0) <= 1.0 else 255.0
    return Image.fromarray(np.clip(values * (255.0 / top), 0, 255).astype(np.uint8))


def upright(image: Image.Image) -> Image.Image:
    """The picture as it was held: its EXIF orientation applied."""
    return ImageOps.exif_transpose(image)


class _Own(threading.local):
    """A resizer for each thread: it keeps a buffer."""

    def __init__(self) -> None:
        self.resizer = quick.Resizer()


_own = _Own() if QUICK else None


def _middle_square(image: Image.Image, how: Preprocessing) -> NDArray[np.uint8]:
    """The middle square uint8 [size, size, 3] of an RGB picture, scaled as `how` says."""
    if _own is None:
        return _by_pillow(image, how)
    small = Image.new("RGB", (how.size, how.size))
    _own.resizer.resize_pil(image, small, _to_middle_square(image.size, how))
    return np.asarray(small)


def _middle_square_of(pixels: NDArray[np.uint8], how: Preprocessing) -> NDArray[np.uint8]:
    """The same of pixels [h, w, 3]; what lies far from the middle of a long picture is not copied."""
    if _own is None:
        return _by_pillow(Image.fromarray(pixels), how)
    keep = min(pixels.shape[:2]) + 2 * MARGIN
    top, left = (max(0, (side - keep) // 2) for side in pixels.shape[:2])
    height, width = (side - 2 * off for side, off in zip(pixels.shape[:2], (top, left), strict=True))
    rows = pixels[top : top + height, left : left + width].tobytes()
    middle = quick.ImageData(width, height, quick.PixelType.U8x3, rows)
    small = quick.ImageData(how.size, how.size, quick.PixelType.U8x3)
    _own.resizer.resize(middle, small, _to_middle_square((width, height), how))
    return np.frombuffer(small.get_buffer(), np.uint8).reshape(how.size, how.size, 3)


def _by_pillow(image: Image.Image, how: Preprocessing) -> NDArray[np.uint8]:
    """The same pixels within 2 levels: columns first, as cykooz-resizer does. Pillow itself does rows first, and what
    bicubic overshoots is cut off between the two."""
    left, top, side = _box(image.size, how)
    smooth = Image.Resampling[_filter(side, how).upper()]
    reach = 2 * max(1.0, side / how.size) + 1  # how far the filter looks, and a pixel
    first, last = max(0, math.floor(left - reach)), min(image.width, math.ceil(left + side + reach))
    if (first, last) != (0, image.width):
        image = image.crop((first, 0, last, image.height))
    low = image.resize((image.width, how.size), smooth, (0, top, image.width, top + side))
    return np.asarray(low.resize((how.size, how.size), smooth, (left - first, 0, left - first + side, how.size)))


def _to_middle_square(size: tuple[int, int], how: Preprocessing) -> Any:
    left, top, side = _box(size, how)
    smooth = {"bicubic": quick.FilterType.catmull_rom, "bilinear": quick.FilterType.bilinear}[_filter(side, how)]
    crop = quick.CropBox(left, top, side, side)
    return quick.ResizeOptions(quick.ResizeAlg.convolution(smooth), use_alpha=False, crop_box=crop)


def _box(size: tuple[int, int], how: Preprocessing) -> tuple[float, float, float]:
    """Left, top and side of the middle square in a picture of width and height `size`, all in its pixels."""
    width, height = size
    side = min(size) * how.size / how.resize
    return (width - side) / 2, (height - side) / 2, side


def _filter(side: float, how: Preprocessing) -> Literal["bicubic", "bilinear"]:
    return how.shrink if side > how.size else "bicubic"


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1  # a damaged EXIF block does not make the pixels wrong


def upright_size(size: tuple[int, int], image: Image.Image) -> tuple[int, int]:
    """Width and height as the picture was held, of `size` as its file says."""
    return size[::-1] if _orientation(image) >= 5 else size


def _turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    turn = _TURNS.get(orientation)
    return pixels if turn is None else np.asarray(Image.fromarray(pixels).transpose(turn))
