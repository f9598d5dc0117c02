"""Pictures of other things, on which evaluation measures how well "not sure" works; README.md is their data card."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from training.evaluation.ood import drawn
from training.model.preprocess import Preprocessing, load

DRAWN: dict[str, Callable[[Generator], Image.Image]] = {
    "noise": drawn.noise,
    "drawing": drawn.drawing,
    "text": drawn.text,
    "screen": drawn.screen,
}
PER_KIND = 32
VIEWS = 5  # of a photograph: whole, and its four quarters
# "sklearn": shipped in scikit-learn's wheel
PHOTOS: dict[str, tuple[str, ...]] = {
    "landscape": ("meadow.jpg", "mountains.jpg", "sunset.jpg", "stream.jpg", "sklearn/china.jpg"),
    "object": ("dandelions.jpg", "fig.jpg", "brushes.jpg", "room.jpg", "sklearn/flower.jpg"),
}
JPEG_QUALITY = 90


def pictures(how: Preprocessing) -> dict[str, NDArray[np.uint8]]:
    """Kind -> pictures as the network sees them, uint8 [N, size, size, 3]; the same at every call."""
    return {kind: np.stack([load(_jpeg(picture), how) for picture in _of(kind)]) for kind in (*DRAWN, *PHOTOS)}


def halves(kind: str, count: int) -> NDArray[np.bool_]:
    """Which of `count` pictures of a kind belong to the first half; all views of a photograph to the same."""
    return np.asarray(np.arange(count) // (VIEWS if kind in PHOTOS else 1) % 2 == 0)


def _of(kind: str) -> Iterator[Image.Image]:
    if kind in DRAWN:
        return (DRAWN[kind](np.random.default_rng((list(DRAWN).index(kind), number))) for number in range(PER_KIND))
    return (view for name in PHOTOS[kind] for view in _views(Image.open(_photo(name))))


def _photo(name: str) -> Path:
    if name.startswith("sklearn/"):
        return Path(str(resources.files("sklearn.datasets") / "images" / Path(name).name))
    return Path(__file__).parent / "photos" / name


def _views(photo: Image.Image) -> Iterator[Image.Image]:
    """VIEWS pictures: the photograph whole, and its four quarters."""
    yield photo
    width, height = photo.size
    for left in (0, width // 2):
        for top in (0, height // 2):
            yield photo.crop((left, top, left + width // 2, top + height // 2))


def _jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
