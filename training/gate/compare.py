"""Two versions on the same test pictures: the paired table, and a sheet of the pictures they disagree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from data.manifest import Manifest, Picture
from training.common.files import replacing
from training.common.table import columns
from training.evaluation.paired import Contingency
from training.evaluation.scores import Scores, score
from training.model.picture.header import open_checked
from training.model.preprocess import whole
from training.registry import pull
from training.registry.mlflow_store import Registry, Version

TILE, CAPTION, ACROSS, MOST = 128, 44, 8, 64  # pixels, pixels, pictures, pictures


@dataclass(frozen=True)
class Comparison:
    """Two versions on the same test pictures. `differing`: on how many their answers differ; `sheet`: if there are any,
    the contact sheet of the first ones."""

    versions: tuple[Version, Version]
    scores: tuple[Scores, Scores]
    pair: Contingency
    differing: int
    sheet: Path | None

    def text(self) -> str:
        rows = [("", "accuracy", "log-loss", "bento model")]
        for letter, version, scores in zip("AB", self.versions, self.scores, strict=True):
            name = f"{letter} = version {version.number}"
            rows.append((name, f"{scores.accuracy:.4f}", f"{scores.log_loss:.4f}", version.bento_tag))
        counts = [
            ("both right", str(self.pair.both_right)),
            ("both wrong", str(self.pair.both_wrong)),
            ("only A right", str(self.pair.only_a)),
            ("only B right", str(self.pair.only_b)),
            ("McNemar p", f"{self.pair.mcnemar():.3g}"),
        ]
        end = f"the answers differ on {self.differing} of {self.pair.pictures} pictures"
        if self.sheet:
            end += f": {self.sheet}" + (f" shows the first {MOST}" if self.differing > MOST else "")
        return f"{columns(rows)}\n\n{columns(counts)}\n\n{end}"

    def as_dict(self) -> dict[str, Any]:
        """The same figures for programs."""
        versions = [
            {"version": v.number, "bento_model": v.bento_tag, "accuracy": s.accuracy, "log_loss": s.log_loss}
            for v, s in zip(self.versions, self.scores, strict=True)
        ]
        return {
            "versions": versions,
            "pictures": self.pair.pictures,
            "differing": self.differing,
            **asdict(self.pair),
            "mcnemar_p": self.pair.mcnemar(),
            "sheet": str(self.sheet) if self.sheet else None,
        }


def compare(registry: Registry, a: Version, b: Version, sheet: Path) -> Comparison:
    """Score both versions on the test split; pictures with different answers go to `sheet`, if there are any."""
    pictures = Manifest.read().split("test")
    first, second = (score(pull.fetch(registry, version), pictures) for version in (a, b))
    pair = Contingency.of(first.right, second.right)
    differing = np.flatnonzero(first.answers != second.answers)
    if len(differing):
        draw_sheet([pictures[number] for number in differing], differing, first, second, sheet)
    return Comparison((a, b), (first, second), pair, len(differing), sheet if len(differing) else None)


def draw_sheet(pictures: Sequence[Picture], numbers: NDArray[np.intp], a: Scores, b: Scores, path: Path) -> None:
    """A contact sheet (PNG): each picture with its class and both answers, green where right."""
    shown = list(zip(pictures, numbers, strict=True))[:MOST]
    down = -(-len(shown) // ACROSS)
    sheet = Image.new("RGB", (min(len(shown), ACROSS) * TILE, down * (TILE + CAPTION)), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (picture, number) in enumerate(shown):
        left, top = place % ACROSS * TILE, place // ACROSS * (TILE + CAPTION)
        image = whole(open_checked(picture.path.read_bytes()))
        image.thumbnail((TILE - 4, TILE - 4))
        sheet.paste(image, (left + 2, top + 2))
        pen.text((left + 4, top + TILE), f"is {picture.label}", "black")
        for line, (letter, scores) in enumerate((("A", a), ("B", b)), 1):
            text = f"{letter}: {scores.answers[number]} {scores.probabilities[number].max():.2f}"
            pen.text((left + 4, top + TILE + 13 * line), text, "green" if scores.right[number] else "firebrick")
    with replacing(path) as part:
        sheet.save(part, "PNG")
