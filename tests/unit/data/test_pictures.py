import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops

from data.duplicates import difference, normalised
from data.pictures import Examined, Refused, Rules, Task, examine
from tests.drawing import drawing, encoded
from training.model.preprocess import Preprocessing, load

RULES = Rules(min_side=16, max_short_side=64)


def examined(folder: Path, data: bytes, rules: Rules = RULES) -> tuple[Examined, Image.Image]:
    found = result(folder, data, rules)
    assert isinstance(found, Examined), found
    image = Image.open(io.BytesIO(found.path.read_bytes()))
    image.load()
    return found, image


def result(folder: Path, data: bytes, rules: Rules = RULES) -> Examined | Refused:
    (folder / "source").write_bytes(data)
    return examine(Task("cat/source", folder / "source", folder), rules)


PLAIN: list[tuple[str, str, dict[str, bool]]] = [
    ("JPEG", ".jpg", {}),
    ("PNG", ".png", {}),
    ("WEBP", ".webp", {}),
    ("BMP", ".bmp", {}),
    ("TIFF", ".tif", {}),
]


@pytest.mark.parametrize(("kind", "suffix", "options"), [*PLAIN, ("JPEG", ".jpg", {"progressive": True})])
def test_a_plain_picture_keeps_its_bytes(tmp_path: Path, kind: str, suffix: str, options: dict[str, bool]) -> None:
    data = encoded(drawing(1), kind, **options)
    found, _ = examined(tmp_path, data)
    assert found.path.read_bytes() == data
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert found.path.name == found.sha256[:16] + suffix
    assert (found.width, found.height) == (48, 40)


def test_a_picture_with_further_pictures_behind_it_keeps_its_bytes(tmp_path: Path) -> None:
    data = encoded(drawing(1), "MPO", save_all=True, append_images=[drawing(2)])
    assert examined(tmp_path, data)[0].path.read_bytes() == data


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_turns_upright(tmp_path: Path, kind: str, orientation: int) -> None:
    turns = Image.Transpose
    backwards = [None, turns.FLIP_LEFT_RIGHT, turns.ROTATE_180, turns.FLIP_TOP_BOTTOM, turns.TRANSPOSE]
    backwards += [turns.ROTATE_90, turns.TRANSVERSE, turns.ROTATE_270]
    turn = backwards[orientation - 1]
    assert turn is not None
    data = encoded(drawing(1).transpose(turn), kind, orientation, **({"lossless": True} if kind == "WEBP" else {}))
    found, image = examined(tmp_path, data)
    assert (found.width, found.height) == image.size == (48, 40)
    assert image.getexif().get(0x0112, 1) == 1
    assert np.abs(np.asarray(image).astype(int) - np.asarray(drawing(1))).mean() < (8 if kind == "JPEG" else 0.01)


def test_scales_the_short_side_down(tmp_path: Path) -> None:
    found, image = examined(tmp_path, encoded(drawing(1, 300, 200), "JPEG"))
    assert (found.width, found.height) == image.size == (96, 64)
    assert image.format == "JPEG"


def test_transparency_is_flattened_over_white(tmp_path: Path) -> None:
    picture = drawing(1).convert("RGBA")
    alpha = Image.new("L", picture.size, 0)
    alpha.putpixel((0, 0), 255)
    picture.putalpha(alpha)
    _, image = examined(tmp_path, encoded(picture))
    assert image.mode == "RGB"
    assert image.crop((1, 0, *image.size)).getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "CMYK", "RGBA"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    _, image = examined(tmp_path, encoded(drawing(1).convert(mode), kind))
    assert (image.mode, image.format, image.size) == ("RGB", kind, (48, 40))


def test_of_an_animation_the_first_picture_is_taken(tmp_path: Path) -> None:
    data = encoded(drawing(1), "WEBP", save_all=True, append_images=[drawing(2)], lossless=True)
    _, image = examined(tmp_path, data)
    assert image.format == "PNG"
    assert ImageChops.difference(image, drawing(1)).getbbox() is None


def test_equal_pixels_have_equal_content_in_any_file(tmp_path: Path) -> None:
    files = [encoded(drawing(1), "PNG"), encoded(drawing(1), "BMP"), encoded(drawing(1), "WEBP", lossless=True)]
    files.append(encoded(drawing(1).transpose(Image.Transpose.ROTATE_90), "PNG", orientation=6))
    assert len({examined(tmp_path, data)[0].content for data in files}) == 1
    assert examined(tmp_path, encoded(drawing(2)))[0].content != examined(tmp_path, files[0])[0].content


def test_content_does_not_depend_on_the_cap(tmp_path: Path) -> None:
    data = encoded(drawing(1, 300, 200))
    assert examined(tmp_path, data)[0].content == examined(tmp_path, data, Rules(16, 512))[0].content


def bad_exif() -> bytes:
    data = bytearray(encoded(drawing(1), "JPEG", orientation=6))
    start = data.index(b"Exif\0\0") + 6
    data[start + 4 : start + 8] = b"\xff\xff\xff\xff"  # the offset of the first directory
    return bytes(data)


JPEG = encoded(drawing(1, 200, 150), "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"no picture at all", "not_an_image"),
        (encoded(drawing(1, 15, 40)), "too_small"),
        (encoded(drawing(1, 1000, 20)), "extreme_aspect"),
        (JPEG[:-2], "corrupt"),
        (JPEG[: len(JPEG) // 2], "corrupt"),
        (encoded(Image.new("RGB", (40, 40), "red")), "blank"),
        (encoded(Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40))), "value_range"),
        (encoded(Image.new("L", (4001, 4000))), "too_many_pixels"),
        (encoded(drawing(1))[:-200], "corrupt"),
        (encoded(drawing(1), "WEBP")[:-10], "corrupt"),
    ],
)
def test_refuses(tmp_path: Path, data: bytes, reason: str) -> None:
    found = result(tmp_path, data)
    assert isinstance(found, Refused)
    assert (found.source, found.reason) == ("cat/source", reason)
    assert found.detail
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


@pytest.mark.parametrize("data", [bad_exif(), encoded(drawing(1))[:-12]])
def test_what_nobody_sees_may_be_damaged(tmp_path: Path, data: bytes) -> None:
    """An EXIF block, and the end of a PNG: the service takes such pictures too."""
    assert examined(tmp_path, data)[0].path.read_bytes() == data


def test_a_range_of_values_is_applied_once(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(np.linspace(0, 4095, 1600).reshape(40, 40).astype(np.uint16)))
    found, image = examined(tmp_path, data, Rules(16, 64, (0.0, 4095.0)))
    assert image.getextrema() == ((0, 255),) * 3
    how = Preprocessing(value_range=(0.0, 4095.0))
    assert np.array_equal(load(data, how), load(found.path.read_bytes(), how))


def test_refuses_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    found = examine(Task("cat/gone", tmp_path / "gone", tmp_path), RULES)
    assert isinstance(found, Refused)
    assert found.reason == "unreadable"


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    found = result(tmp_path, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")
    assert isinstance(found, Refused)
    assert found.reason == "lfs_pointer"


def test_a_worn_copy_is_within_the_tolerance(tmp_path: Path) -> None:
    original = drawing(1, 64, 48)
    first, _ = examined(tmp_path, encoded(original))
    copy, _ = examined(tmp_path, encoded(original.resize((43, 32)), "JPEG", quality=70))
    seen = [normalised(np.frombuffer(one.colours, np.uint8)[None]) for one in (first, copy)]
    assert 0 < difference(*seen)[0, 0] <= first.tolerance
