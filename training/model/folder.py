"""The model folder: what `export` writes and every store holds, byte for byte.

    model.onnx        image uint8 [N, size, size, 3] -> probabilities float32 [N, classes] (calibrated),
                      embedding float32 [N, D], novelty float32 [N] (how unlike the training pictures, 0 to about 1),
                      activation float32 [N, classes, h, w] (class-activation map before softmax)
    model_card.json   classes, preprocessing, precision (fp32 or int8), metrics (with behaviour and other_things),
                      thresholds, lineage, self-check answers
    reference.npz     what is normal for its pictures: drift checks compare with it (training.model.reference)
    self_check/       a few test pictures, predicted again at every start
    mistakes/         thumbnails of the worst mistakes on the test split
    SHA256SUMS        `sha256sum -c` format, of every other file

Only the standard library is imported: this module travels into the Bento.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from training.common.errors import ExpectedError
from training.common.files import file_sha256
from training.model.preprocess import Preprocessing

MODEL_FOLDER = Path("models/model")  # where export leaves one
MODEL_FILE = "model.onnx"
CARD_FILE = "model_card.json"
SUMS_FILE = "SHA256SUMS"
SIGNATURE_FILE = "model.sig"
BENTO_FILE = "model.yaml"  # what the BentoML store adds to a folder it holds


class ModelFolderError(ExpectedError):
    """A model folder is incomplete, was changed, or answers otherwise than it did at evaluation."""


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS over every file of `folder` (without itself and a signature), sorted by name."""
    lines = [f"{file_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in _listed(folder)]
    (folder / SUMS_FILE).write_text("".join(lines))


def verify_sums(folder: Path) -> None:
    """Raise ModelFolderError, naming the file, when one is missing, changed or not listed in SHA256SUMS."""
    sums = folder / SUMS_FILE
    if not sums.is_file():
        raise ModelFolderError(f"{sums} is missing: this is not a complete model folder")
    expected = {name: digest for digest, _, name in (line.partition("  ") for line in sums.read_text().splitlines())}
    found = {path.relative_to(folder).as_posix(): path for path in _listed(folder)}
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            raise ModelFolderError(f"{folder / name} is missing, but {SUMS_FILE} lists it")
        if name not in expected:
            raise ModelFolderError(f"{folder / name} is not listed in {SUMS_FILE}")
        if file_sha256(found[name]) != expected[name]:
            raise ModelFolderError(f"{folder / name} was changed: its SHA-256 is not the one in {SUMS_FILE}")


def _listed(folder: Path) -> list[Path]:
    unlisted = {folder / name for name in (SUMS_FILE, SIGNATURE_FILE, BENTO_FILE)}
    return sorted(path for path in folder.rglob("*") if path.is_file() and path not in unlisted)


@dataclass(frozen=True)
class ModelFolder:
    """A verified model folder and its card."""

    path: Path
    card: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> ModelFolder:
        """Verify the checksums of `path` and read its card; ModelFolderError names what is wrong."""
        verify_sums(path)
        return cls(path, json.loads((path / CARD_FILE).read_text()))

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.card["classes"])

    @cached_property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(**self.card["preprocessing"])

    @cached_property
    def sha256(self) -> str:
        """The identity of the model: the hash of model.onnx, which holds weights, temperature and normalisation."""
        return file_sha256(self.path / MODEL_FILE)
