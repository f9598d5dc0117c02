import functools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.drawing import drawing, encoded
from training.model.picture.header import PictureError, open_checked
from training.model.picture.values import ValueRange
from training.model.preprocess import Preprocessing, load, whole

REFERENCES = Path(__file__).parent / "references.npz"
SAME = 2  # levels


@functools.cache
def references() -> dict[str, tuple[bytes, NDArray[np.uint8]]]:
    """Files of many layouts, and what another decoder sees in them: see references.py."""
    stored = np.load(REFERENCES)
    files = np.split(stored["files"], stored["ends"][:-1])
    return {
        str(name): (file.tobytes(), seen)
        for name, file, seen in zip(stored["names"], files, stored["seen"], strict=True)
    }


def verdicts(value_range: dict[str, ValueRange] | None = None) -> dict[str, str]:
    """`right`, `wrong` or the code of the refusal, by the name of the file."""
    found = {}
    for name, (data, seen) in references().items():
        span = (value_range or {}).get(name.split()[1])
        try:
            apart = np.abs(np.asarray(whole(open_checked(data), span), np.int16) - seen).max()
            found[name] = "right" if apart <= SAME else f"wrong by {apart}"
        except PictureError as error:
            found[name] = error.code
    return found


def counted(found: dict[str, str], what: str) -> dict[str, int]:
    kinds = [name.split()[1] for name, verdict in found.items() if verdict == what]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def test_every_layout_is_right_or_refused() -> None:
    found = verdicts()
    assert set(found.values()) == {"right", "unsupported_format", "value_range"}
    assert counted(found, "right") == {"16": 3, "8": 3, "float32": 6, "uint16": 12, "uint8": 16}


def test_with_a_range_more_of_them_are_right() -> None:
    spans = {"int8": (-128.0, 127.0), "int16": (-32768.0, 32767.0), "uint32": (0.0, 2.0**32 - 1)}
    found = verdicts(spans | {"int32": (-(2.0**31), 2.0**31 - 1)})
    assert set(found.values()) == {"right", "unsupported_format"}
    plain = {"16": 3, "8": 3, "float32": 6, "uint16": 12, "uint8": 16}
    assert counted(found, "right") == plain | {"int16": 3, "int32": 3, "int8": 4, "uint32": 2}


def grey(top: float, dtype: Any = np.uint16) -> Image.Image:
    """A slope from 0 to `top`."""
    return Image.fromarray(np.linspace(0, top, 64 * 48).reshape(48, 64).astype(dtype))


SLOPE = np.linspace(0, 255, 64 * 48).reshape(48, 64, 1)


def refused(data: bytes, value_range: ValueRange | None = None) -> PictureError:
    with pytest.raises(PictureError) as caught:
        load(data, Preprocessing(value_range=value_range))
    with pytest.raises(PictureError) as other:
        whole(open_checked(data), value_range)
    assert (caught.value.code, str(caught.value)) == (other.value.code, str(other.value))
    return caught.value


@pytest.mark.parametrize("top", [1023, 4095, 16383])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_fewer_bits_in_16_need_a_range(kind: str, top: int) -> None:
    data = encoded(grey(top), kind)
    error = refused(data)
    assert error.code == "value_range"
    assert f"0 to {top}" in str(error)
    assert "prepare.value_range" in error.hint
    assert np.abs(np.asarray(whole(open_checked(data), (0, top)), np.float64) - SLOPE).max() <= 1
    assert load(data, Preprocessing(value_range=(0, top))).mean() == pytest.approx(127.5, abs=2)


@pytest.mark.parametrize("top", [0.1, 1.5, 255.0])
def test_floating_point_is_from_0_to_1_or_needs_a_range(top: float) -> None:
    data = encoded(grey(top, np.float32), "TIFF")
    assert refused(data).code == "value_range"
    assert np.abs(np.asarray(whole(open_checked(data), (0, top)), np.float64) - SLOPE).max() <= 1


def test_beyond_the_range_is_black_or_white_and_what_is_no_number_is_black() -> None:
    values = np.full((20, 20), 0.5, np.float32)
    values[0, :4] = np.nan, np.inf, -1, 2
    found = np.asarray(whole(open_checked(encoded(Image.fromarray(values), "TIFF")), (0, 1)))
    assert found[0, :5, 0].tolist() == [0, 0, 0, 255, 128]


def coloured_12_in_16(top: int) -> bytes:
    """A TIFF of colours with 16 bits of which `top` is the highest value."""
    values = np.linspace(0, top, 30 * 20 * 3).reshape(20, 30, 3).astype("<u2")
    tags = {256: 30, 257: 20, 258: 8 + 2 + 9 * 12 + 4, 259: 1, 262: 2, 273: 136, 277: 3, 278: 20, 279: values.nbytes}
    entries = b"".join(struct.pack("<HHII", tag, 3, 3 if tag == 258 else 1, value) for tag, value in tags.items())
    return (
        b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + b"\x10\0" * 3 + bytes(8) + values.tobytes()
    )


def test_colours_of_fewer_bits_in_16_are_refused() -> None:
    assert refused(coloured_12_in_16(4095)).code == "value_range"
    assert refused(coloured_12_in_16(65535), (0, 4095)).code == "value_range"
    found = np.asarray(whole(open_checked(coloured_12_in_16(65535))), np.float64)
    assert np.abs(found - np.linspace(0, 255, 30 * 20 * 3).reshape(20, 30, 3)).max() <= 1


def test_a_range_leaves_pictures_of_8_bits_alone() -> None:
    data = encoded(drawing(1))
    assert np.array_equal(load(data, Preprocessing()), load(data, Preprocessing(value_range=(0, 4095))))


def bitmap(alpha: int) -> bytes:
    """A BMP (version 5) of 32 bits that says it has an alpha channel."""
    pixels = np.dstack([np.asarray(drawing(1))[::-1, :, ::-1], np.full((40, 48), alpha, np.uint8)])
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    head = struct.pack("<IiiHHIIiiII", 124, 48, 40, 1, 32, 3, pixels.nbytes, 2835, 2835, 0, 0) + masks + b"BGRs"
    head += bytes(124 - len(head))
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + pixels.nbytes, 0, 0, 14 + len(head)) + head + pixels.tobytes()


def test_an_alpha_channel_of_nothing_but_0_in_a_bmp_means_nothing() -> None:
    opaque = np.asarray(drawing(1))
    assert np.array_equal(np.asarray(whole(open_checked(bitmap(0)))), opaque)
    assert np.array_equal(np.asarray(whole(open_checked(bitmap(255)))), opaque)
    half = np.asarray(whole(open_checked(bitmap(127))), np.int16)
    assert np.abs(half - (opaque.astype(np.int16) + 255) / 2).max() <= 1


def test_a_transparent_value_of_16_bits_is_white() -> None:
    found = np.asarray(whole(open_checked(encoded(grey(65535), transparency=0))))
    assert found[0, 0].tolist() == [255] * 3
    assert found[0, 20].tolist() == [2] * 3


@pytest.mark.parametrize(
    "data",
    [
        encoded(Image.new("RGB", (64, 64), (200, 30, 30)), "JPEG"),
        encoded(Image.new("L", (640, 480), 7), "JPEG"),
        encoded(Image.new("RGB", (64, 64), "black")),
        encoded(Image.new("P", (64, 64), 3)),
        encoded(Image.new("RGBA", (64, 64), (0, 0, 0, 0))),
        encoded(Image.fromarray(np.full((64, 64), np.nan, np.float32)), "TIFF"),
        encoded(Image.fromarray(np.full((64, 64), 65535, np.uint16))),
    ],
)
def test_a_picture_of_one_colour_is_blank(data: bytes) -> None:
    assert refused(data).code == "blank"


def test_one_pixel_outside_the_middle_is_something_to_see() -> None:
    image = Image.new("RGB", (300, 200), "black")
    image.putpixel((0, 199), (0, 0, 1))
    assert not load(encoded(image), Preprocessing()).any()
    assert whole(open_checked(encoded(image))).size == (300, 200)
