"""The values of a picture file -> RGB of 8 bits: transparency over white, more bits scaled down, or a refusal.

What Pillow gives for more than 8 bits is not always what the file holds, and what such values mean is not always said.
A picture is refused where it would come out near black, inverted or garbled. Tried against tifffile on every
combination of type, colours, planes, compression, order of bytes and tiles: tests/unit/model/test_values.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from training.model.picture.colour import to_srgb
from training.model.picture.header import PictureError

BACKGROUND = (255, 255, 255)  # what shows through transparent pixels
USED = 4  # the highest value is at least such a part of what the type holds, or the type does not say what values mean
EIGHT_BITS = 255
KINDS: dict[int, Literal["unsigned", "signed", "float"]] = {1: "unsigned", 2: "signed", 3: "float"}
WHITE_IS_ZERO = 0
SEPARATE_PLANES = 2

ValueRange = tuple[float, float]


@dataclass(frozen=True)
class _Samples:
    """How a file keeps its values, and whether the highest is black."""

    bits: int = 8
    kind: Literal["unsigned", "signed", "float"] = "unsigned"
    inverted: bool = False


def flatten(image: Image.Image, value_range: ValueRange | None = None) -> Image.Image:
    """The decoded pixels as RGB, by the file's colour profile. PictureError, or whatever the decoder raises.

    `value_range`: the values of black and white in grey pictures of more than 8 bits; None: all that the type holds.
    """
    samples = _samples(image)  # before it is loaded: it is forgotten then
    profile, transparent = image.info.get("icc_profile"), image.has_transparency_data
    if image.mode.startswith("I") or image.mode == "F" or samples.kind != "unsigned":
        return _over_white(_eight_bits(image, samples, value_range), _keyed(image)).convert("RGB")
    if image.mode == "RGB" and not transparent:
        image.load()
    elif transparent:
        image = _opaque(image)
    else:
        if image.mode in ("L", "CMYK"):
            image, profile = to_srgb(image, profile), None
        image = image.convert("RGB")
    if samples.bits > 8:
        _check_colours(image, value_range)
    return to_srgb(image, profile)


def _samples(image: Image.Image) -> _Samples:
    """Raises PictureError for a layout that Pillow would read wrongly."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _samples_of_tiff(image)
    tiles = getattr(image, "tile", None)
    args = tiles[0].args if tiles else ""
    raw = args if isinstance(args, str) else next((each for each in args or () if isinstance(each, str)), "")
    return _Samples(16 if image.mode.startswith("I") or ";16" in raw else 8)


def _samples_of_tiff(image: TiffImagePlugin.TiffImageFile) -> _Samples:
    tags = image.tag_v2
    bits = max(_numbers(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))))
    kind = KINDS.get(_numbers(tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,)))[0], "unsigned")
    raw = image.info.get("compression") == "raw"
    if bits > 8 and raw and tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == SEPARATE_PLANES and len(image.mode) > 2:
        raise _layout(f"planes of {bits} bits that lie apart")
    if image.mode in ("I", "F") and not raw and tags.prefix == b"MM":
        raise _layout(f"compressed values of {bits} bits with the high byte first")
    white_is_zero = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO
    return _Samples(bits, kind, white_is_zero and image.mode not in ("1", "L"))  # Pillow has turned those


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple) else (value,)


def _layout(what: str) -> PictureError:
    return PictureError("unsupported_format", f"a TIFF with {what} is not read", "save it as PNG, or with 8 bits")


def _eight_bits(image: Image.Image, samples: _Samples, value_range: ValueRange | None) -> Image.Image:
    values = _values(image, samples)
    low, high = value_range or _range_of_type(values, samples)
    wide = np.float64 if samples.bits > 16 else np.float32
    scaled = np.nan_to_num(values.astype(wide), nan=low, posinf=low, neginf=low, copy=False)
    scaled -= low
    scaled *= EIGHT_BITS / (high - low)
    np.clip(scaled, 0, EIGHT_BITS, out=scaled)
    grey = Image.fromarray(np.rint(scaled, out=scaled).astype(np.uint8))
    return Image.eval(grey, lambda level: EIGHT_BITS - level) if samples.inverted else grey


def _values(image: Image.Image, samples: _Samples) -> NDArray[Any]:
    values = np.asarray(image)
    if image.mode == "I" and samples.bits == 32 and samples.kind == "unsigned":
        return values.view(np.uint32)  # Pillow takes the highest bit for a sign
    if image.mode == "L" and samples.kind == "signed":
        return values.view(np.int8)
    return values


def _range_of_type(values: NDArray[Any], samples: _Samples) -> ValueRange:
    """What black and white are, where nobody said so; PictureError where the type does not say it either."""
    known = values[np.isfinite(values)] if samples.kind == "float" else values
    lowest, highest = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    if samples.kind == "unsigned" and samples.bits <= 16:
        top = 2.0**samples.bits - 1
        if highest >= top / USED:
            return 0.0, top
    elif samples.kind == "float" and lowest >= 0 and 1 / USED <= highest <= 1:
        return 0.0, 1.0
    what = f"{samples.kind} values of {samples.bits} bits, here {lowest:g} to {highest:g}"
    if lowest == highest:
        raise blank()
    raise _unknown_range(what)


def _check_colours(image: Image.Image, value_range: ValueRange | None) -> None:
    """Pillow keeps the high byte of colours with 16 bits: too little is left of 12 in 16."""
    extrema: Any = image.getextrema()
    if max(high for _, high in extrema) < (EIGHT_BITS + 1) / USED:
        raise _unknown_range("colours of 16 bits that use the lowest bits alone")
    if value_range not in (None, (0.0, 65535.0)):
        message = "a range of values is for grey pictures, and this one has colours of 16 bits"
        raise PictureError("value_range", message, "save it with 8 bits")


def _unknown_range(what: str) -> PictureError:
    hint = "save it with 8 bits, or train with the values of black and white in params.yaml (prepare.value_range)"
    return PictureError("value_range", f"it does not say which values are black and white: {what}", hint)


def blank() -> PictureError:
    """Of a picture without anything to see."""
    return PictureError("blank", "all pixels of the picture are the same", "send a picture with something in it")


def _opaque(image: Image.Image) -> Image.Image:
    """RGB over white. The alpha of a BMP is often left at 0 by who never meant it to be transparent."""
    over = image if image.mode == "RGBA" else image.convert("RGBA")
    alpha = over.getchannel("A")
    if image.format == "BMP" and alpha.getextrema() == (0, 0):
        return over.convert("RGB")
    return _over_white(over, alpha)


def _over_white(image: Image.Image, alpha: Image.Image | None) -> Image.Image:
    if alpha is None:
        return image
    ground = Image.new("RGB", image.size, BACKGROUND)
    ground.paste(image, mask=alpha)
    return ground


def _keyed(image: Image.Image) -> Image.Image | None:
    """The alpha of grey with 16 bits of which one value is transparent."""
    key = image.info.get("transparency")
    if not isinstance(key, int):
        return None
    return Image.fromarray(np.where(np.asarray(image) == key, 0, EIGHT_BITS).astype(np.uint8))
