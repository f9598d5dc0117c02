import io
import json
import random
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tests.drawing import drawing, encoded, scanned, tiled
from training.model import preprocess
from training.model.picture import header
from training.model.picture.header import FORMATS, Limits, PictureError, open_checked
from training.model.picture.values import flatten
from training.model.preprocess import Preprocessing, load, shrink

HOW = Preprocessing()


def seen(data: bytes, how: Preprocessing = HOW) -> NDArray[np.int16]:
    """What the network would see, as signed numbers that can be subtracted."""
    return load(data, how).astype(np.int16)


def refused(data: bytes, limits: Limits | None = None) -> PictureError:
    with pytest.raises(PictureError) as caught:
        load(data, HOW, limits or Limits())
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.slow
@pytest.mark.parametrize("size", [(300, 200), (200, 300), (32, 32), (8, 100), (1201, 803)])
@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_and_size_becomes_the_same_square(kind: str, size: tuple[int, int]) -> None:
    found = load(encoded(drawing(1, *size), kind), HOW)
    assert found.shape == (224, 224, 3)
    assert found.dtype == np.uint8


def test_it_is_the_middle_square_of_the_scaled_picture() -> None:
    picture = drawing(1, 400, 256)
    reference = np.asarray(picture.crop((88, 16, 312, 240)), dtype=np.int16)  # short side 256: no scaling
    assert np.array_equal(seen(encoded(picture)), reference)


def test_the_filter_is_for_pictures_that_become_smaller() -> None:
    bilinear = Preprocessing(shrink="bilinear")
    large, small = encoded(drawing(1, 600, 400)), encoded(drawing(1, 48, 32))
    assert not np.array_equal(seen(large), seen(large, bilinear))
    assert np.abs(seen(large) - seen(large, bilinear)).mean() < 2
    assert np.array_equal(seen(small), seen(small, bilinear))


def test_lossless_formats_agree() -> None:
    files = [encoded(drawing(1), kind) for kind in ("PNG", "BMP", "TIFF")] + [
        encoded(drawing(1), "WEBP", lossless=True)
    ]
    assert all(np.array_equal(seen(files[0]), seen(data)) for data in files[1:])


@pytest.mark.slow
@pytest.mark.parametrize("size", [(600, 400), (1800, 1200), (3001, 2003)])
def test_a_jpeg_decoded_small_looks_like_one_decoded_in_full(size: tuple[int, int]) -> None:
    data = encoded(drawing(1, *size), "JPEG", quality=90)
    full = encoded(Image.open(io.BytesIO(data)), "PNG")
    assert np.abs(seen(data) - seen(full)).mean() < 1.5


def test_a_jpeg_is_decoded_small_but_never_below_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def spy(image: Image.Image, *range_of_values: Any) -> Image.Image:
        sizes.append(image.size)
        return flatten(image, *range_of_values)

    monkeypatch.setattr(preprocess, "flatten", spy)
    load(encoded(drawing(1, 2400, 1600), "JPEG"), HOW)
    assert HOW.resize <= min(sizes[-1]) < 1600 // 3


@pytest.mark.parametrize("size", [(300, 200), (301, 203), (17, 90), (511, 700)])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"subsampling": 2}, {"progressive": True}])
def test_the_quicker_decoder_gives_the_same_pixels(size: tuple[int, int], options: dict[str, Any]) -> None:
    data = encoded(drawing(1, *size), "JPEG", **options)
    opened = open_checked(data)
    decoded = preprocess._quickly_decoded(opened, data)
    assert decoded is not None
    assert np.array_equal(decoded, np.asarray(Image.open(io.BytesIO(data))))
    assert np.array_equal(load(data, HOW), shrink(opened, HOW))


def noisy(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8))


def striped(width: int, height: int) -> Image.Image:
    """Black and white with sharp edges, which bicubic overshoots."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, ::16] = pixels[::24] = 255
    return Image.fromarray(pixels)


@pytest.mark.needs("cykooz-resizer")
@pytest.mark.parametrize(
    "size", [(32, 32), (48, 40), (301, 203), (256, 256), (8, 100), (900, 60), (640, 480), (1500, 900)]
)
@pytest.mark.parametrize("shrink", ["bicubic", "bilinear"])
@pytest.mark.parametrize("draw", [lambda *size: drawing(1, *size), noisy, striped])
def test_without_the_quick_resizer_pillow_gives_the_same_pixels(
    draw: Callable[..., Image.Image], shrink: Any, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    how = Preprocessing(shrink=shrink)
    files = [encoded(draw(*size)), encoded(draw(*size), "JPEG", subsampling=0), encoded(draw(*size), orientation=6)]
    quickly = [seen(data, how) for data in files]
    monkeypatch.setattr(preprocess, "_own", None)
    apart = [np.abs(seen(data, how) - pixels) for data, pixels in zip(files, quickly, strict=True)]
    assert max(one.max() for one in apart) <= 2
    assert max(one.mean() for one in apart) < 0.05


def test_it_works_where_the_quick_resizer_is_not_installed() -> None:
    """Its import fails in a Python of its own; the answer is the one of Pillow."""
    program = (
        "import sys; sys.modules['cykooz_resizer'] = None\n"
        "from training.model.preprocess import Preprocessing, load\n"
        "print(load(sys.stdin.buffer.read(), Preprocessing()).mean(axis=(0, 1)).round(1).tolist())"
    )
    data = encoded(drawing(1, 640, 480))
    done = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True)
    expected = seen(data).mean(axis=(0, 1))
    assert np.abs(np.array(json.loads(done.stdout)) - expected).max() < 0.1


def damaged(data: bytes) -> bytes:
    """A JPEG with a byte too many before one of its markers: decoders warn of it and go on."""
    place = data.index(b"\xff\xda")
    return data[:place] + b"\0" + data[place:]


@pytest.mark.parametrize("picture", [drawing(1).convert("L"), drawing(1).convert("CMYK")])
def test_what_the_quicker_decoder_does_not_take_pillow_decodes(picture: Image.Image) -> None:
    data = encoded(picture, "JPEG")
    assert preprocess._quickly_decoded(open_checked(data), data) is None
    assert np.array_equal(load(data, HOW), shrink(open_checked(data), HOW))


def test_what_pillow_accepts_with_a_warning_is_accepted() -> None:
    data = encoded(drawing(1), "JPEG")
    assert preprocess._quickly_decoded(open_checked(damaged(data)), damaged(data)) is None
    assert np.array_equal(load(damaged(data), HOW), load(data, HOW))


def test_a_subsampling_without_a_name_is_left_to_pillow() -> None:
    data = bytearray(encoded(Image.new("RGB", (64, 64), (200, 30, 30)), "JPEG", subsampling=0))
    data[data.index(b"\xff\xc0") + 11] = 0x14  # of the first component: one across, four down
    opened = open_checked(bytes(data))
    assert preprocess._quickly_decoded(opened, bytes(data)) is None
    assert np.array_equal(load(bytes(data), HOW), shrink(open_checked(bytes(data)), HOW))


def test_a_jpeg_of_many_scans_is_the_work_of_many_pictures() -> None:
    flat = Image.new("L", (1700, 1700), 128)
    flat.paste(0, (0, 0, 900, 900))
    assert refused(scanned(flat, 500)).code == "too_many_pixels"
    assert load(scanned(flat, 0), HOW).shape == (224, 224, 3)
    data = scanned(drawing(1), 20)
    assert header.work(open_checked(data), data) > drawing(1).width * drawing(1).height
    assert preprocess._quickly_decoded(open_checked(data), data) is None  # it would be decoded twice


def test_a_tiff_counts_with_the_pixels_of_its_tiles() -> None:
    assert refused(tiled(100, 8000)).code == "too_many_pixels"
    data = tiled(100, 1024)
    assert header.work(open_checked(data), data) == 1024 * 1024
    assert not shrink(open_checked(data), HOW).any()


def test_whatever_a_decoder_raises_the_picture_is_corrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(image: Image.Image, _: Any) -> Image.Image:
        raise TypeError("'str' object cannot be interpreted as an integer")

    monkeypatch.setattr(preprocess, "flatten", stumble)
    assert refused(encoded(drawing(1), "TIFF")).code == "corrupt"


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def by_pillow(picture: Image.Image, how: Preprocessing, name: str) -> NDArray[np.int16]:
    side = min(picture.size) * how.size / how.resize
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(picture.resize((224, 224), Image.Resampling[name.upper()], box), dtype=np.int16)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(300, 270), (640, 480), (1000, 1017), (2100, 1901), (257, 5000)])
def test_the_quicker_resizer_shrinks_to_what_pillow_gives(size: tuple[int, int], name: Any) -> None:
    how = Preprocessing(shrink=name)
    difference = np.abs(seen(encoded(noise(*size)), how) - by_pillow(noise(*size), how, name))
    assert difference.mean() < 0.5
    assert name == "bicubic" or difference.max() == 1


@pytest.mark.parametrize("size", [(200, 210), (32, 32), (9, 8)])
def test_the_quicker_resizer_enlarges_to_nearly_what_pillow_gives(size: tuple[int, int]) -> None:
    """Noise is the worst: overshoot is cut off after the first direction, and Pillow takes the other one first."""
    found, wanted = seen(encoded(noise(*size))), by_pillow(noise(*size), HOW, "bicubic")
    assert np.abs(found - wanted).mean() < 1
    assert np.abs(found - by_pillow(noise(*size), HOW, "bilinear")).mean() > 2


@pytest.mark.parametrize("size", [(5000, 270), (501, 500), (300, 301), (290, 306), (500, 2001)])
def test_of_a_long_jpeg_the_same_square_is_seen(size: tuple[int, int]) -> None:
    data = encoded(noise(*size), "JPEG")
    assert np.array_equal(load(data, HOW), shrink(open_checked(data), HOW))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(300, 200), (301, 200), (1203, 802)])
def test_turning_the_small_square_equals_turning_the_picture(
    kind: str, orientation: int, size: tuple[int, int]
) -> None:
    data = encoded(drawing(orientation, *size), kind, orientation)
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    difference = np.abs(seen(data) - seen(encoded(turned)))
    assert difference.mean() < 1.0


def test_a_transparent_picture_is_turned_too() -> None:
    picture = Image.new("RGBA", (300, 200), (255, 0, 0, 255))
    picture.paste((0, 0, 255, 255), (0, 0, 150, 200))
    found = seen(encoded(picture, orientation=6))  # to be turned clockwise: the left side comes to the top
    assert found[5, 112].tolist() == [0, 0, 255]
    assert found[-5, 112].tolist() == [255, 0, 0]


def test_a_damaged_orientation_is_no_orientation() -> None:
    data = bytearray(encoded(drawing(1), "JPEG", orientation=6))
    start = data.index(b"Exif\0\0") + 6
    data[start + 4 : start + 8] = b"\xff\xff\xff\xff"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.array_equal(seen(bytes(data)), seen(encoded(drawing(1), "JPEG")))


RED = (200, 30, 30)


def keyed_png() -> bytes:
    """An RGB picture whose one colour is declared transparent."""
    return encoded(Image.new("RGB", (64, 64), RED), transparency=RED)


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        (encoded(Image.new("RGBA", (64, 64), (*RED, 0))), (255, 255, 255)),
        (encoded(Image.new("RGBA", (64, 64), (*RED, 255))), RED),
        (encoded(Image.new("RGBA", (64, 64), (0, 0, 0, 128))), (127, 127, 127)),
        (encoded(Image.new("LA", (64, 64), (0, 0))), (255, 255, 255)),
        (encoded(Image.new("RGBA", (64, 64), (*RED, 0)).quantize(4)), (255, 255, 255)),
        (encoded(Image.new("RGBA", (64, 64), (*RED, 0)), "GIF"), (255, 255, 255)),
        (keyed_png(), (255, 255, 255)),
        (encoded(Image.new("RGBA", (64, 64), (*RED, 0)), "WEBP"), (255, 255, 255)),
        (encoded(Image.new("L", (64, 64), 90)), (90, 90, 90)),
        (encoded(Image.new("1", (64, 64), 1)), (255, 255, 255)),
        (encoded(Image.new("RGB", (64, 64), RED).convert("CMYK"), "JPEG"), RED),
        (encoded(Image.new("RGB", (64, 64), RED).convert("CMYK"), "TIFF"), RED),
        (encoded(Image.new("RGB", (64, 64), RED).convert("YCbCr"), "TIFF"), RED),
        (encoded(Image.fromarray(np.full((64, 64), 65535, np.uint16))), (255, 255, 255)),
        (encoded(Image.fromarray(np.full((64, 64), 32768, np.uint16))), (127, 127, 127)),
        (encoded(Image.fromarray(np.full((64, 64), 32768, np.uint16)), "TIFF"), (127, 127, 127)),
        (encoded(Image.fromarray(np.full((64, 64), 0.5, np.float32)), "TIFF"), (127, 127, 127)),
    ],
)
def test_every_kind_of_pixel_becomes_rgb(data: bytes, colour: tuple[int, int, int]) -> None:
    found = shrink(open_checked(data), HOW).astype(np.int16)  # without the bytes: `load` refuses one colour
    assert np.abs(found - colour).max() <= 3


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_of_several_pictures_in_a_file_the_first_is_seen(kind: str) -> None:
    data = encoded(drawing(1), kind, save_all=True, append_images=[drawing(2)])
    first, second = seen(encoded(drawing(1))), seen(encoded(drawing(2)))
    assert np.abs(seen(data) - first).mean() * 4 < np.abs(seen(data) - second).mean()


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels, in 57 bytes."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunks + struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))


def test_a_bomb_is_refused_from_its_header() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "load", lambda self: pytest.fail("pixels were decoded"))
        assert refused(png_header(8000, 8000)).code == "too_many_pixels"
        assert refused(png_header(2**31 - 1, 2**31 - 1)).code == "too_many_pixels"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty"),
        (b"hello", "not_an_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
        (b"%PDF-1.7", "not_an_image"),
        (encoded(drawing(1), "ICO"), "not_an_image"),
        (encoded(drawing(1, 7, 40)), "too_small"),
        (encoded(drawing(1, 400, 10)), "extreme_aspect"),
    ],
)
def test_says_why_a_picture_is_refused(data: bytes, code: str) -> None:
    assert refused(data).code == code


def test_limits_are_those_given() -> None:
    data = encoded(drawing(1, 40, 30), "GIF")
    assert refused(data, Limits(max_pixels_whole=1199)).code == "too_many_pixels"
    assert refused(data, Limits(min_side=31)).code == "too_small"
    assert refused(data, Limits(max_aspect=1.3)).code == "extreme_aspect"
    found = refused(data, Limits(formats=("JPEG", "PNG")))
    assert (found.code, found.hint) == ("unsupported_format", "send JPEG, or one of PNG")
    assert load(data, HOW, Limits(max_pixels_whole=1200, min_side=30, max_aspect=1.34)).shape == (224, 224, 3)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_picture_is_refused(kind: str, share: float) -> None:
    data = encoded(drawing(1, 200, 160), kind)
    assert refused(data[: int(len(data) * share)]).code in ("corrupt", "not_an_image")  # WebP and TIFF: no index left


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_jpeg_without_its_last_two_bytes_is_refused(options: dict[str, bool]) -> None:
    assert refused(encoded(drawing(1, 200, 160), "JPEG", **options)[:-2]).code == "corrupt"


@pytest.mark.parametrize("kind", FORMATS)
def test_damage_raises_nothing_but_picture_error(kind: str) -> None:
    chance = random.Random(kind)
    whole = encoded(drawing(1, 64, 48), kind, orientation=6 if kind in ("JPEG", "PNG", "WEBP", "TIFF") else 1)
    outcomes = set()
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 2, 20))):
            data[chance.randrange(min(len(data), chance.choice((60, 10_000))))] = chance.randrange(256)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcomes.add(str(load(bytes(data), HOW).shape))
        except PictureError as error:
            outcomes.add(error.code)
    assert "corrupt" in outcomes


def test_imports_no_more_than_the_bento_carries() -> None:
    source = Path(preprocess.__file__).read_text()
    imported = {line.split()[1].split(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))}
    libraries = {"numpy", "PIL", "simplejpeg"}
    assert imported == libraries | {"__future__", "math", "threading", "dataclasses", "typing", "training"}
