"""What the peers share: the weights and the seam of this project, so that only the servers differ."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from training.model.classifier import Classifier
from training.model.folder import ModelFolder

MODEL = Path(os.environ.get("BENCH_MODEL", "models/model"))
PORT = int(os.environ.get("BENCH_PORT", "8000"))
BATCH = 8


def classifier(threads: int = 1) -> Classifier:
    return Classifier(ModelFolder.open(MODEL), threads)


def answer(probabilities: Any) -> dict[str, list[float]]:
    return {"probabilities": [float(value) for value in probabilities]}
