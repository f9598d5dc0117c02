"""The seam between training and serving: the bytes of a picture -> the array the network sees.

Training, evaluation, the gate, drift checks and the service all call `load`, so a picture is never seen in two ways.
Only numpy, Pillow and two libraries that are quicker at what they do are imported: this module travels into the Bento.
simplejpeg decodes to the same pixels in three quarters of the time; cykooz-resizer resizes with the same filters in a
fifth, to the same pixels within rounding (bicubic, which overshoots, at sharp edges to within a few levels). Where it
is not installed, Pillow resizes: it has no wheel for Linux on arm64.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image

from training.model.picture.colour import changes, to_srgb
from training.model.picture.header import DEFAULT_LIMITS, SCANS, Limits, PictureError, corrupt, open_checked, scans
from training.model.picture.values import ValueRange, blank, flatten

try:
    import cykooz_resizer as quick
except ModuleNotFoundError:
    quick = None

QUICK = quick is not None

LOOK = 16  # pixels from one that is looked at to the next
MARGIN = 8  # pixels around the middle square that the filter may look at: its support, as nothing shrinks by half here


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the network's input: short side to `resize`, the middle `size` x `size` square of it.

    `shrink` is the filter for pictures that become smaller: bicubic, or bilinear, as accurate there at half the work.
    Smaller ones are enlarged by bicubic: bilinear blurs them, and costs 2 points of accuracy on pictures of 32 x 32.
    `value_range`: the values of black and white in grey pictures of more than 8 bits, as training data had them.
    """

    size: int = 224
    resize: int = 256
    shrink: Literal["bicubic", "bilinear"] = "bicubic"
    value_range: ValueRange | None = None

    def __post_init__(self) -> None:
        if self.value_range is not None:  # a list where it comes from JSON
            object.__setattr__(self, "value_range", tuple(map(float, self.value_range)))

    def as_dict(self) -> dict[str, Any]:
        """What a model card keeps: a service that knows no `value_range` reads the card of a model without one."""
        return {name: value for name, value in vars(self).items() if name != "value_range" or value is not None}


def load(data: bytes, how: Preprocessing, limits: Limits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """The network's input, uint8 [size, size, 3] in RGB, of the bytes of one picture; PictureError if it is not one.

    Normalisation is part of the network. A JPEG is decoded at the smallest scale that still covers `resize`, and a
    picture is turned upright after it was made small: the middle square is the same and both are many times quicker.
    """
    return shrink(open_checked(data, limits), how, data)


def shrink(image: Image.Image, how: Preprocessing, data: bytes | None = None) -> NDArray[np.uint8]:
    """The second half of `load`: the opened picture decoded and made the network's input; PictureError if damaged.

    `data` are the bytes that `image` was opened from: with them a JPEG is decoded sooner, to the same pixels, and a
    picture of one colour is refused.
    """
    try:
        _draft(image, how)
        decoded: NDArray[np.uint8] | Image.Image | None = None if data is None else _quickly_decoded(image, data)
        if isinstance(decoded, np.ndarray):
            small = _middle_square_of(decoded, how)
        else:
            decoded = flatten(image, how.value_range)
            small = _middle_square(decoded, how)
        if data is not None and _one_colour(small) and _one_colour(np.asarray(decoded)):
            raise blank()
        return _turned(small, orientation(image))
    except PictureError:
        raise
    except Exception as error:  # decoders raise whatever a damaged file makes them stumble over
        raise corrupt(error) from None


def whole(
    image: Image.Image, value_range: ValueRange | None = None, most: int = DEFAULT_LIMITS.max_pixels
) -> Image.Image:
    """The opened picture as `shrink` sees it, upright RGB in full size; PictureError for what `load` would refuse.

    Of a JPEG with more than `most` pixels the largest is given that is decoded from it and has no more.
    """
    try:
        scale = next((scale for scale in (1, 2, 4) if image.width * image.height <= most * scale**2), 8)
        if image.format == "JPEG" and scale > 1:
            image.draft(None, (image.width // scale, image.height // scale))
        rgb = flatten(image, value_range)
        if _one_colour(np.asarray(rgb.resize((LOOK, LOOK), Image.Resampling.NEAREST))) and _one_colour(np.asarray(rgb)):
            raise blank()
        turn = _TURNS.get(orientation(image))
        upright = rgb if turn is None else rgb.transpose(turn)
        upright.info.clear()  # what it says of orientation and profile is done
        return upright
    except PictureError:
        raise
    except Exception as error:  # as in `shrink`
        raise corrupt(error) from None


def _one_colour(pixels: NDArray[np.uint8]) -> bool:
    """Of RGB [h, w, 3]; some are looked at first, which is enough for nearly all pictures."""
    return not (pixels[::LOOK, ::LOOK] != pixels[0, 0]).any() and not (pixels != pixels[0, 0]).any()


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
    profile = image.info.get("icc_profile")
    return np.asarray(to_srgb(Image.fromarray(pixels), profile)) if changes(profile, "RGB") else pixels


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


def orientation(image: Image.Image) -> int:
    """How the picture is to be turned, 1 to 8 as EXIF says it; 1 where nothing is said."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1  # a damaged EXIF block does not make the pixels wrong


def upright_size(size: tuple[int, int], image: Image.Image) -> tuple[int, int]:
    """Width and height as the picture was held, of `size` as its file says."""
    return size[::-1] if orientation(image) >= 5 else size


def _turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    turn = _TURNS.get(orientation)
    return pixels if turn is None else np.asarray(Image.fromarray(pixels).transpose(turn))
