"""Answers for labelled pictures as monitoring.performance judges them, and what the logs tell of production."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monitoring import request_log
from monitoring.served import Served
from training.common.intervals import wilson_corrected
from training.evaluation.metrics import Floats, Labels
from training.model.columns import SCORED, of_classes

NAMED = 5  # refused files, in the output and on the page


@dataclass(frozen=True)
class Skew:
    """On how many pictures the service answers otherwise than the model offline, by how much at worst, and on how many
    with another class."""

    pictures: int
    worst: float
    path: str
    relabelled: int


@dataclass(frozen=True)
class Judged:
    """Answers for labelled pictures of `folder`: the rows of training.score; `milliseconds` each took where a service
    gave them."""

    model: Served
    source: str
    folder: str
    rows: pd.DataFrame
    skew: Skew | None = None
    milliseconds: Sequence[float] = ()

    @property
    def pictures(self) -> int:
        return len(self.rows)

    @property
    def refused(self) -> str:
        """How many were refused, which, and why, in words."""
        rows = self.rows[self.rows["refused"].notna()]
        first = [f"{row.path} ({row.refused})" for row in rows.head(NAMED).itertuples()]
        more = [f"{len(rows) - NAMED} more"] if len(rows) > NAMED else []
        return f"{len(rows)} refused" + (f", counted as wrong: {', '.join([*first, *more])}" if first else "")

    @cached_property
    def right(self) -> int:
        return int((self.rows["prediction"] == self.rows["label"]).sum())

    @property
    def accuracy(self) -> float:
        return self.right / self.pictures

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_corrected(self.right, self.pictures)

    def text(self) -> str:
        """For people, in one line."""
        low, high = self.interval
        return (
            f"{self.source}: accuracy {self.accuracy:.4f} (95 % interval {low:.4f} to {high:.4f}), "
            f"{self.pictures} pictures, {self.refused}"
        )

    def known(self) -> tuple[Labels, Floats]:
        """Labels [N] and probabilities [N, classes] of the pictures that have an answer."""
        classes = list(self.model.folder.classes)
        rows = self.rows[self.rows["prediction"].notna()]
        probabilities = rows[of_classes(classes, SCORED)].to_numpy(float)
        return np.array([classes.index(label) for label in rows["label"]]), probabilities


@dataclass
class Production:
    """What the request log and the feedback tell: answers by hour and class, latencies, who was right."""

    classes: Sequence[str]
    hours: defaultdict[datetime, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    milliseconds: list[float] = field(default_factory=list)
    said: dict[str, list[tuple[datetime, bool]]] = field(default_factory=dict)

    def watching(self, records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The same records, counted on their way."""
        for record in records:
            self.hours[record["time"].replace(minute=0, second=0, microsecond=0)][record["predicted"]] += 1
            if isinstance(record.get("total_ms"), int | float):
                self.milliseconds.append(record["total_ms"])
            yield record

    def listen(self, folders: Sequence[Path]) -> None:
        """Read all feedback, of every version."""
        last = {record["request_id"]: record for folder in folders for record in request_log.read_feedback(folder)}
        for record in sorted(last.values(), key=lambda record: record["time"]):
            self.said.setdefault(record["version"], []).append((record["time"], record["label"] == record["predicted"]))
