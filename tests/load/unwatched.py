"""The service without its watching, for the benchmark: no request log, no metrics of its own, no picture properties."""

from __future__ import annotations

from typing import Any

from service import PictureClassifier as PictureClassifier
from training.model.reference import Reference
from training.serving.records.watch import Watch


def nothing(*_: Any) -> None:
    """Stands for what is left out."""


Watch.predicted = Watch.ran = nothing  # type: ignore[method-assign,assignment]
Reference.load = nothing  # type: ignore[method-assign,assignment]
