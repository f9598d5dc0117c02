import struct

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ImageCms

from tests.drawing import drawing, encoded
from training.model.picture import colour
from training.model.picture.header import open_checked
from training.model.preprocess import Preprocessing, load, whole

D50 = (0.9642, 1.0, 0.8249)
# Of red, green and blue: rows of the matrix to XYZ (D50), and the exponent.
SPACES = {
    "Display P3": (((0.5151, 0.2412, -0.0011), (0.2919, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)), 2.2),
    "Adobe RGB": (((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446)), 2.2),
    "ProPhoto": (((0.7977, 0.2880, 0.0), (0.1352, 0.7119, 0.0), (0.0313, 0.0001, 0.8249)), 1.8),
}
SRGB = (((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)), 2.2)


def profile(columns: tuple[tuple[float, ...], ...], exponent: float) -> bytes:
    """An ICC profile of three primaries and one exponent (ICC.1:2001-04)."""

    def xyz(values: tuple[float, ...]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(exponent * 256)) + b"\0\0"
    tags = {
        b"wtpt": xyz(D50),
        **{name: xyz(each) for name, each in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)},
    }
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    start, body, index = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        index += name + struct.pack(">II", start + len(body), len(content))
        body += content
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + b"".join(struct.pack(">i", round(value * 65536)) for value in D50)
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + index + body


def seen(data: bytes) -> NDArray[np.int16]:
    return load(data, Preprocessing()).astype(np.int16)


def meant(name: str) -> NDArray[np.float64]:
    """`drawing(1)` in a wide space, as sRGB by the formulas alone."""
    columns, exponent = SPACES[name]
    linear = (np.asarray(drawing(1)) / 255.0) ** exponent
    to_srgb = np.linalg.inv(np.array(SRGB[0]).T) @ np.array(columns).T
    share = np.clip(linear @ to_srgb.T, 0, 1)
    shown: NDArray[np.float64] = np.where(share <= 0.0031308, 12.92 * share, 1.055 * share ** (1 / 2.4) - 0.055)
    return 255 * shown


@pytest.mark.parametrize("name", SPACES)
def test_a_wide_space_is_converted(name: str) -> None:
    data = encoded(drawing(1), icc_profile=profile(*SPACES[name]))
    found = np.asarray(whole(open_checked(data)), np.float64)
    assert np.abs(found - np.asarray(drawing(1))).max() > 20
    assert np.abs(found - meant(name)).max() <= 2


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_what_the_network_sees_is_what_the_whole_picture_shows(kind: str, name: str) -> None:
    data = encoded(drawing(1, 400, 300), kind, icc_profile=profile(*SPACES[name]))
    shown = whole(open_checked(data))
    assert np.abs(seen(data) - seen(encoded(shown))).max() <= 2
    assert "icc_profile" not in shown.info


def test_srgb_is_left_alone_by_whatever_name(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = seen(encoded(drawing(1)))
    for icc in (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), b"", b"no profile at all"):
        assert np.array_equal(seen(encoded(drawing(1), icc_profile=icc)), plain)


def test_a_profile_is_looked_at_once() -> None:
    icc = profile(*SPACES["Display P3"])
    colour._transform.cache_clear()
    for seed in range(4):
        load(encoded(drawing(seed), icc_profile=icc), Preprocessing())
    assert colour._transform.cache_info().misses == 1
    assert colour._transform.cache_info().hits >= 3


def test_a_profile_of_other_pixels_is_no_profile() -> None:
    icc = profile(*SPACES["ProPhoto"])
    grey, ink = drawing(1).convert("L"), drawing(1).convert("CMYK")
    assert np.array_equal(seen(encoded(grey, icc_profile=icc)), seen(encoded(grey)))
    assert np.array_equal(seen(encoded(ink, "TIFF", icc_profile=icc)), seen(encoded(ink, "TIFF")))


def test_a_long_profile_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    icc = profile(*SPACES["ProPhoto"])
    monkeypatch.setattr(colour, "LONGEST", len(icc) - 1)
    assert colour.to_srgb(drawing(1), icc).tobytes() == drawing(1).tobytes()


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_profile_does_not_make_a_picture_wrong(seed: int) -> None:
    chance = np.random.default_rng(seed)
    icc = bytearray(profile(*SPACES["Display P3"]))
    for _ in range(1 + seed):
        icc[chance.integers(len(icc))] = chance.integers(256)
    assert seen(encoded(drawing(1), icc_profile=bytes(icc[: chance.integers(20, len(icc))]))).shape == (224, 224, 3)
