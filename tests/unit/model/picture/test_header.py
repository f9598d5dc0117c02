import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.drawing import drawing, encoded, scanned
from training.model.picture.header import Limits, PictureError, one_scan, open_checked
from training.model.preprocess import Preprocessing, load, whole

PNG = encoded(drawing(1))
JPEG = encoded(drawing(1, 800, 600), "JPEG")
FEW = Limits(max_pixels=100_000)  # a fifth of those of JPEG


def refused(data: bytes, limits: Limits = FEW) -> PictureError:
    with pytest.raises(PictureError) as caught:
        open_checked(data, limits)
    return caught.value


def test_a_jpeg_of_one_scan_is_limited_by_what_is_decoded_of_it() -> None:
    assert np.array_equal(load(JPEG, Preprocessing(), FEW), load(JPEG, Preprocessing()))
    shown = whole(open_checked(JPEG, FEW), most=FEW.max_pixels)
    assert shown.size == (200, 150)
    assert refused(encoded(drawing(1, 1200, 900), "JPEG")).hint == "send at most 800,000 pixels"


def test_of_more_scans_every_pixel_is_in_memory() -> None:
    error = refused(encoded(drawing(1, 800, 600), "JPEG", progressive=True))
    assert (error.code, error.hint) == ("too_many_pixels", "send at most 100,000 pixels")
    assert refused(scanned(drawing(1, 800, 600), 3)).code == "too_many_pixels"


@pytest.mark.parametrize("options", [{}, {"exif": b"Exif\0\0MM\0*\xff\xda\0\0"}, {"restart_marker_blocks": 4}])
def test_counts_the_scans_of_a_jpeg(options: dict[str, Any]) -> None:
    for mode in ("L", "RGB", "CMYK"):
        image = drawing(1).convert(mode)
        assert one_scan(encoded(image, "JPEG", **options))
        assert not one_scan(encoded(image, "JPEG", progressive=True, **options))


def test_a_jpeg_with_a_scan_for_each_colour_has_three() -> None:
    data = bytearray(JPEG)
    data[data.index(b"\xff\xda") + 4] = 1
    assert not one_scan(bytes(data))


@pytest.mark.parametrize("marker", [0x01, 0xD0, 0xD8, 0xC2, 0xC9])
def test_a_header_that_may_mean_something_else_is_not_of_one_scan(marker: int) -> None:
    """One that hides a frame behind a marker without a length, for instance."""
    assert not one_scan(JPEG[:2] + bytes([0xFF, marker, 0, 2]) + JPEG[2:])
    assert one_scan(JPEG[:2] + b"\xff\xff\xff" + JPEG[3:])  # bytes that fill up
    assert not one_scan(JPEG[:100])


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


LONG = b"x" * 2_000_000
TEXTS = {
    "plain": chunk(b"tEXt", b"Comment\0" + LONG),
    "packed": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(LONG)),
    "international": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(LONG)),
    "many": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(LONG[:100_000])) * 800,
    "damaged": chunk(b"zTXt", b"Comment\0\0no stream"),
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("after", [b"IHDR", b"IDAT"])
def test_long_texts_in_a_png_do_not_matter(name: str, after: bytes) -> None:
    place = PNG.index(after) - 4
    length = struct.unpack(">I", PNG[place : place + 4])[0]
    data = PNG[: place + 12 + length] + TEXTS[name] + PNG[place + 12 + length :]
    assert np.array_equal(load(data, Preprocessing()), load(PNG, Preprocessing()))
    assert whole(open_checked(data)).tobytes() == drawing(1).tobytes()


def test_what_a_short_text_says_of_the_orientation_is_heard() -> None:
    data = encoded(drawing(1), orientation=6)
    text = chunk(b"tEXt", b"Comment\0hello")
    assert whole(open_checked(data[:33] + text + data[33:])).size == (40, 48)


def test_a_tiff_that_is_not_read_says_what_it_holds() -> None:
    data = bytearray(encoded(Image.new("F", (20, 20), 0.5), "TIFF"))
    place = data.index(struct.pack("<HHI", 258, 3, 1))
    data[place + 8 : place + 10] = struct.pack("<H", 64)
    error = refused(bytes(data))
    assert error.code == "unsupported_format"
    assert "1 float values of 64 bits" in str(error)
