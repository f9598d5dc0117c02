import random
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.drawing import drawing, encoded
from tests.service.pictures import heic_of_tiles
from training.model.picture import header
from training.model.picture.boxes import BoxError, needed
from training.model.picture.colour import wide_gamut
from training.model.picture.header import Limits, PictureError, open_checked
from training.model.preprocess import Preprocessing, load, whole

ROOT = Path(__file__).parents[4]
WIDTH, HEIGHT = 200, 160
PLAIN = drawing(1, WIDTH, HEIGHT)
CLEAR = Image.merge("RGBA", (*PLAIN.split(), Image.linear_gradient("L").resize(PLAIN.size)))
HEIC, AVIF, TILES = encoded(PLAIN, "HEIF"), encoded(PLAIN, "AVIF"), heic_of_tiles(PLAIN, 64)
KINDS = {"HEIC": HEIC, "AVIF": AVIF, "tiles": TILES}


def refused(data: bytes, limits: Limits | None = None) -> PictureError:
    with pytest.raises(PictureError) as caught:
        load(data, Preprocessing(), limits or Limits())
    return caught.value


@pytest.mark.parametrize("name", KINDS)
def test_heic_and_avif_show_what_was_encoded(name: str) -> None:
    shown = np.asarray(whole(open_checked(KINDS[name])), np.int16)
    assert np.abs(shown - np.asarray(PLAIN)).mean() < 6


def test_counts_the_tiles_and_what_they_make() -> None:
    pixels = WIDTH * HEIGHT
    assert (
        (needed(HEIC).largest, needed(HEIC).pixels) == (needed(AVIF).largest, needed(AVIF).pixels) == (pixels, pixels)
    )
    assert needed(TILES).largest == pixels
    assert pixels + 12 * 64 * 64 <= needed(TILES).pixels <= 3 * pixels
    assert needed(encoded(CLEAR, "HEIF")).pixels == needed(encoded(CLEAR, "AVIF")).pixels == 2 * pixels


def sizes(data: bytes) -> list[int]:
    """Where in a file it says how large a picture is."""
    found, place = [], data.find(b"ispe")
    while place >= 0:
        found.append(place + 8)
        place = data.find(b"ispe", place + 1)
    return found


def stated(data: bytes, place: int, width: int, height: int) -> bytes:
    return data[:place] + struct.pack(">II", width, height) + data[place + 8 :]


@pytest.mark.parametrize("name", KINDS)
def test_a_size_that_is_too_large_is_refused_before_anything_is_decoded(name: str) -> None:
    for place in sizes(KINDS[name]):
        for width, height in ((16_000, 16_000), (2**31 - 1, 2**31 - 1), (30_000, 8)):
            assert refused(stated(KINDS[name], place, width, height)).code in (
                "too_many_pixels",
                "corrupt",
                "extreme_aspect",
            )


def test_a_large_hevc_picture_behind_a_small_size_is_refused() -> None:
    """libheif gives up before the memory is taken, from 1.23 on."""
    assert refused(stated(HEIC, sizes(HEIC)[0], 16, 16)).code == "corrupt"


def test_a_large_av1_picture_behind_a_small_size_is_refused() -> None:
    """libavif would have it decoded, and scaled down to what the box says."""
    lying = stated(AVIF, sizes(AVIF)[0], 16, 16)
    assert needed(lying).largest == WIDTH * HEIGHT
    assert refused(lying, Limits(max_pixels_heif=WIDTH * HEIGHT - 1)).code == "too_many_pixels"


def test_a_grid_of_the_same_tile_again_and_again_is_refused() -> None:
    place = TILES.index(b"dimg") + 4
    count = struct.unpack_from(">H", TILES, place + 2)[0]
    first = struct.unpack_from(">H", TILES, place + 4)[0]
    same = TILES[: place + 4] + struct.pack(">H", first) * count + TILES[place + 4 + 2 * count :]
    assert needed(same).pixels == needed(TILES).pixels
    grid = struct.unpack_from(">H", TILES, place)[0]
    round_about = TILES[: place + 4] + struct.pack(">H", grid) * count + TILES[place + 4 + 2 * count :]
    with pytest.raises(BoxError, match="too many pictures"):
        needed(round_about)
    assert refused(round_about).code == "corrupt"
    limits = Limits(max_pixels_heif=needed(TILES).largest)
    assert load(TILES, Preprocessing(), limits).shape == (224, 224, 3)
    assert refused(TILES, Limits(max_pixels_heif=needed(TILES).largest - 1)).code == "too_many_pixels"


def test_a_film_is_refused() -> None:
    assert "film" in str(refused(HEIC + struct.pack(">I4s", 8, b"moov")))


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
@pytest.mark.parametrize("data", [HEIC, AVIF])
def test_high_dynamic_range_is_refused(data: bytes, transfer: int, name: str) -> None:
    place = data.index(b"colrnclx") + 10
    error = refused(data[:place] + struct.pack(">H", transfer) + data[place + 2 :])
    assert (error.code, error.hint) == ("unsupported_format", "send it as JPEG")
    assert name in str(error)


@pytest.mark.parametrize("data", [HEIC, AVIF])
@pytest.mark.parametrize("primaries", [9, 12])
def test_stated_primaries_are_converted_as_a_profile_is(data: bytes, primaries: int) -> None:
    place = data.index(b"colrnclx") + 8
    wide = np.asarray(whole(open_checked(data[:place] + struct.pack(">H", primaries) + data[place + 2 :])), np.int16)
    plain = whole(open_checked(data))
    profile = wide_gamut(primaries)
    assert profile
    assert np.abs(wide - np.asarray(whole(open_checked(encoded(plain, icc_profile=profile))), np.int16)).max() <= 2
    assert np.abs(wide - np.asarray(plain)).max() > 20


@pytest.mark.parametrize("name", ["HEIC", "AVIF"])
def test_what_a_build_leaves_out_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header, "FORMATS", header.FORMATS[:6])
    error = refused(KINDS[name], Limits(formats=header.FORMATS[:6]))
    assert (error.code, str(error)) == ("unsupported_format", f"{name} is not accepted here")
    assert error.hint == "send JPEG, or one of PNG, WEBP, GIF, BMP, TIFF"
    assert str(refused(KINDS[name], Limits(formats=("JPEG",)))) == f"{name} is not accepted here"


def worse(data: bytes, chance: random.Random) -> bytes:
    """With up to three numbers of its head changed, some to large ones."""
    changed, end = bytearray(data), min(len(data), data.find(b"mdat") + 100)
    for _ in range(chance.choice((1, 1, 2, 3))):
        place, length = chance.randrange(end - 4), chance.choice((1, 2, 4, 4))
        number = chance.choice((0, 0xFFFFFFFF, 0x7FFFFFFF, 16_384, 5000, chance.randrange(2**32)))
        changed[place : place + length] = struct.pack(">I", number)[-length:]
    return bytes(changed)


def attack() -> float:
    """Load changed files one after another; megabytes that this took at most."""
    chance, process, done = random.Random(1), psutil.Process(), threading.Event()
    before, peaks = process.memory_info().rss, [0]

    def watch() -> None:
        while not done.wait(0.002):
            peaks[0] = max(peaks[0], process.memory_info().rss - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    codes = set()
    for data in KINDS.values():
        for _ in range(150):
            try:
                load(worse(data, chance), Preprocessing())
                codes.add("taken")
            except PictureError as error:
                codes.add(error.code)
    done.set()
    watcher.join()
    assert {"taken", "corrupt", "too_many_pixels"} <= codes
    return peaks[0] / 2**20


def test_no_change_of_a_header_takes_much_memory() -> None:
    code = "from tests.unit.model.picture.test_boxes import attack; print(attack())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert 0 < float(done.stdout) < 200
