"""How answers behave when a picture changes: what must not matter, what must lower the confidence, what must be known.

Ribeiro et al. 2020 (Beyond Accuracy: Behavioral Testing of NLP Models with CheckList): invariance, directional
expectation and minimum functionality tests, here on photographs.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageEnhance, ImageFilter, ImageOps
from PIL.Image import Image as Picture

from training.evaluation import metrics
from training.model.picture.header import open_checked
from training.model.preprocess import Preprocessing, shrink, whole

Probabilities = Callable[[NDArray[np.uint8], str], NDArray[np.floating[Any]]]
Change = Callable[[Picture], Picture]  # of an upright RGB picture

NAMED_FILE = Path(__file__).parents[2] / "data/named.txt"
SLIGHT = 0.1  # share by which brightness and contrast change
MARGIN = 0.05  # share of the picture that is cut off on each side
QUALITY = 75  # JPEG
BLUR = 0.03  # radius of the Gaussian, by the short side
GRAIN = 60.0  # standard deviation of the noise, of 255


def _enhanced(picture: Picture, kind: Callable[[Picture], Any], factor: float) -> Picture:
    changed: Picture = kind(picture).enhance(factor)
    return changed


def _encoded(picture: Picture, orientation: int = 1, quality: int = QUALITY) -> Picture:
    """The picture written as JPEG and opened again, as a service gets it."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality, exif=exif)
    return open_checked(file.getvalue())


def _lying(picture: Picture) -> Picture:
    """As a phone held sideways writes it: turned, and EXIF says so."""
    return _encoded(picture.transpose(Image.Transpose.ROTATE_90), orientation=6, quality=95)


def _cut(picture: Picture) -> Picture:
    width, height = picture.size
    across, down = round(MARGIN * width), round(MARGIN * height)
    return picture.crop((across, down, width - across, height - down))


def _blurred(picture: Picture) -> Picture:
    return picture.filter(ImageFilter.GaussianBlur(BLUR * min(picture.size)))


def _grainy(picture: Picture) -> Picture:
    pixels = np.asarray(picture, np.float64)
    noisy = pixels + np.random.default_rng(1).normal(0, GRAIN, pixels.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


INVARIANT: dict[str, Change] = {
    "mirrored": ImageOps.mirror,
    "brighter": partial(_enhanced, kind=ImageEnhance.Brightness, factor=1 + SLIGHT),
    "darker": partial(_enhanced, kind=ImageEnhance.Brightness, factor=1 - SLIGHT),
    "more_contrast": partial(_enhanced, kind=ImageEnhance.Contrast, factor=1 + SLIGHT),
    "less_contrast": partial(_enhanced, kind=ImageEnhance.Contrast, factor=1 - SLIGHT),
    "encoded_again": _encoded,
    "exif_rotated": _lying,
    "cropped": _cut,
}
LESS_SURE: dict[str, Change] = {"blurred": _blurred, "noisy": _grainy}


def measure(probabilities: Probabilities, pictures: Sequence[bytes], how: Preprocessing) -> dict[str, Any]:
    """Invariance and direction on N picture files.

    For every change that must not matter: the share of pictures with the same answer as before, with its interval, and
    the mean change of the probability of that answer. For every change that must lower the confidence: the mean
    confidence before and after, and the 95 % interval of the mean difference.
    """
    originals = [whole(open_checked(data)) for data in pictures]

    def seen(name: str, change: Change) -> NDArray[np.float64]:
        images = np.stack([shrink(change(picture), how) for picture in originals])
        return np.asarray(probabilities(images, name), np.float64)

    before = seen("unchanged", Picture.copy)
    return {
        "pictures": len(pictures),
        "invariance": {name: _invariance(before, seen(name, change)) for name, change in INVARIANT.items()},
        "direction": {name: _direction(before, seen(name, change)) for name, change in LESS_SURE.items()},
    }


def harmless(wanted: Sequence[str] | None, views: Sequence[str] | None) -> list[str]:
    """Names of the changes that must leave an answer as it is: those wanted, or (None) what the training says.

    `views`: what a solved head learned from, as cross-validation chose; None: the recipe mirrors without asking. A
    mirrored digit is another sign, a mirrored cat is a cat: the pictures of one's own problem decide.
    """
    if wanted is not None:
        return list(wanted)
    learned = views is None or "mirrored" in views
    return [name for name in INVARIANT if learned or name != "mirrored"]


def _invariance(before: NDArray[np.float64], after: NDArray[np.float64]) -> dict[str, Any]:
    rows, answers = np.arange(len(before)), before.argmax(1)
    moved = np.abs(after[rows, answers] - before[rows, answers])
    return {"same_answer": metrics.share(after.argmax(1) == answers), "mean_change": float(moved.mean())}


def _direction(before: NDArray[np.float64], after: NDArray[np.float64]) -> dict[str, Any]:
    difference = after.max(1) - before.max(1)
    spread = metrics.QUANTILE_95 * float(difference.std(ddof=1)) / len(difference) ** 0.5
    mean = float(difference.mean())
    return {
        "confidence_before": float(before.max(1).mean()),
        "confidence_after": float(after.max(1).mean()),
        "change": {"value": mean, "interval": [mean - spread, mean + spread]},
    }


def named() -> frozenset[str]:
    """Pictures that anyone recognises, as paths in their source (manifest column `source`)."""
    lines = NAMED_FILE.read_text().splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


def minimum(sources: Sequence[str], right: NDArray[np.bool_], wanted: Collection[str]) -> dict[str, Any]:
    """How many of the pictures that anyone recognises are answered right, and which are not."""
    found = {source: bool(good) for source, good in zip(sources, right, strict=True) if source in wanted}
    return {
        "pictures": len(found),
        "right": sum(found.values()),
        "wrong": sorted(source for source, good in found.items() if not good),
    }
