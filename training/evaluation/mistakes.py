"""The worst mistakes on the test split, small enough to travel with the model and be looked at beside its figures."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.manifest import PICTURES_FOLDER
from training.model.picture.header import open_checked
from training.model.preprocess import whole

FOLDER = "mistakes"
SIDE = 160  # pixels, of a thumbnail's long side
QUALITY = 85


@dataclass(frozen=True)
class Mistake:
    """A picture that was taken for another class, and the calibrated probability of that."""

    path: Path
    label: str
    predicted: str
    confidence: float


def worst(predictions: Path, count: int) -> list[Mistake]:
    """The `count` most confident mistakes in the predictions that `evaluate` wrote, the worst first."""
    with predictions.open(newline="") as file:
        lines = csv.reader(file)
        next(lines)
        wrong = [
            Mistake(PICTURES_FOLDER / name, label, predicted, max(float(value) for value in values))
            for name, _, label, predicted, *values in lines
            if label != predicted
        ]
    return sorted(wrong, key=lambda mistake: -mistake.confidence)[:count]


def embed(mistakes: list[Mistake], folder: Path) -> list[dict[str, Any]]:
    """Write a JPEG thumbnail of each into the model folder; returns what the model card says of them."""
    records = []
    for number, mistake in enumerate(mistakes):
        file = f"{FOLDER}/{number:02d}.jpg"
        picture = whole(open_checked(mistake.path.read_bytes()))
        picture.thumbnail((SIDE, SIDE))
        (folder / FOLDER).mkdir(exist_ok=True)
        picture.save(folder / file, quality=QUALITY)
        found = {"label": mistake.label, "predicted": mistake.predicted, "confidence": mistake.confidence}
        records.append({"file": file, **found})
    return records
