"""The model folder, and the classifier that answers from it with ONNX Runtime: what serves is what is judged.

A model folder is what `export` writes and every store holds, byte for byte:

    model.onnx        image uint8 [N, size, size, 3] -> probabilities float32 [N, classes] (calibrated),
                      embedding float32 [N, D], novelty float32 [N] (how unlike the training pictures, 0 to about 1),
                      activation float32 [N, classes, h, w] (class-activation map before softmax)
    model_card.json   classes, preprocessing, precision (fp32 or int8), metrics (with behaviour and other_things),
                      thresholds, lineage, self-check answers
    reference.npz     what is normal for its pictures: drift checks compare with it (training.reference)
    self_check/       a few test pictures, predicted again at every start
    mistakes/         thumbnails of the worst mistakes on the test split
    SHA256SUMS        `sha256sum -c` format, of every other file

Only numpy, ONNX Runtime and what decodes pictures are imported: this module travels into the Bento.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training.errors import ExpectedError
from training.preprocess import Preprocessing, load

if TYPE_CHECKING:
    import onnxruntime

MODEL_FOLDER = Path("models/model")  # where export leaves one
MODEL_FILE = "model.onnx"
CARD_FILE = "model_card.json"
SUMS_FILE = "SHA256SUMS"
SIGNATURE_FILE = "model.sig"
BENTO_FILE = "model.yaml"  # what the BentoML store adds to a folder it holds
SELF_CHECK_TOLERANCE = 1e-3  # in probability; kernels differ between processors, by far less than this


class ModelFolderError(ExpectedError):
    """A model folder is incomplete, was changed, or answers otherwise than it did at evaluation."""


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


class Classifier:
    """Predictions from a model folder. Thread-safe: sessions of ONNX Runtime may run in several threads at once."""

    def __init__(self, folder: ModelFolder, threads: int = 1) -> None:
        import onnxruntime  # here, because BentoML's supervisor imports this module and never runs a model

        self.folder = folder
        self.session = onnxruntime.InferenceSession(
            str(folder.path / MODEL_FILE), session_options(threads), providers=_providers()
        )

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities float32 [N, classes] of preprocessed pictures uint8 [N, size, size, 3]."""
        return self.run(images, ("probabilities",))[0]

    def run(self, images: NDArray[np.uint8], outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        """The named outputs of the network, in order."""
        return list(self.session.run(list(outputs), {"image": images}))

    def predict_bytes(self, pictures: Sequence[bytes]) -> NDArray[np.float32]:
        """Probabilities float32 [N, classes] of picture files; PictureError for the first that is not one."""
        return self.predict(np.stack([load(data, self.folder.preprocessing) for data in pictures]))

    def self_check(self) -> None:
        """Predict the embedded pictures; ModelFolderError when an answer is not the one recorded at evaluation."""
        for record in self.folder.card["self_check"]:
            path = self.folder.path / record["file"]
            probabilities = self.predict_bytes([path.read_bytes()])[0]
            difference = float(np.abs(probabilities - np.asarray(record["probabilities"])).max())
            if not difference <= SELF_CHECK_TOLERANCE:
                raise ModelFolderError(
                    f"self-check failed on {path}: probabilities differ from those of evaluation by {difference:.2g}, "
                    f"more than {SELF_CHECK_TOLERANCE:g}"
                )


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Options for a session that shares the processor with others: `threads` of its own, none of them spinning."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_mem_pattern = False  # it keeps memory for every size of batch, and gains nothing here
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin while they wait take the processor from the HTTP server beside them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _providers() -> list[str]:
    import onnxruntime

    available = onnxruntime.get_available_providers()
    return [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]


def usable_cores() -> int:
    """Processors this process may run on: its affinity, and the container's CPU quota rounded up."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _cgroup_quota())))


def _cgroup_quota(root: Path = Path("/sys/fs/cgroup")) -> float:
    """Processors the control group (version 2 or 1) grants, infinity without a limit."""
    try:
        if (root / "cpu.max").is_file():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota, period = ((root / f"cpu/cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if quota != "max" and int(quota) > 0 else math.inf
    except (OSError, ValueError):
        return math.inf
