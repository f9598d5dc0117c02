"""Metrics that are facts of the whole service, worked out at every scrape: which model, what
waits, live accuracy, drift.

Whichever worker is asked reads them from the same files, so there is nothing to add up over workers, and nothing of a
worker that died.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import orjson
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from training.inference import ModelFolder
from training.serving import metrics
from training.serving.board import Board, Figure
from training.serving.feedback_store import FeedbackStore
from training.serving.log_files import DRIFT_FILE

log = logging.getLogger("bentoml.facts")
Values = Sequence[tuple[list[str], float]]  # of the labels, and the value


class Facts(Collector):
    """Of the model in `folder`, served as `version`; `model` says where it comes from, as /health does."""

    def __init__(
        self,
        folder: ModelFolder,
        model: dict[str, Any],
        version: str,
        feedback: FeedbackStore,
        board: Board,
        max_waiting: int,
    ) -> None:
        self.folder, self.model, self.version, self.feedback = folder, model, version, feedback
        self.board, self.max_waiting = board, max_waiting
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._complained = False

    def text(self) -> str:
        """In the text format of Prometheus; empty, with the cause in the log, when they cannot be told."""
        try:
            metrics.forget_the_dead()
            self.board.forget_the_dead()
            return generate_latest(self._registry).decode()
        except Exception:  # BentoML would leave the whole scrape without an answer until its timeout
            log.exception("the facts of the service cannot be told to Prometheus")
            return ""

    def describe(self) -> list[GaugeMetricFamily]:
        return []  # nothing is read before the first scrape

    def collect(self) -> Iterator[GaugeMetricFamily]:
        labels = {name: self.model[name] or "" for name in ("name", "run_id", "data_hash", "git_commit")}
        labels |= {"version": self.version, "model_sha256": self.folder.sha256[:16]}
        yield _family("model_info", "The model that is served", list(labels), [(list(labels.values()), 1.0)])
        waiting = self.board.all(Figure.PICTURES)
        yield _family("waiting_pictures", "Pictures accepted and not yet answered", [], [([], waiting)])
        yield _family("waiting_limit", "Pictures that may wait", [], [([], self.max_waiting)])
        yield from self._card()
        yield from self._accuracy()
        yield from self._drift()

    def _card(self) -> Iterator[GaugeMetricFamily]:
        said = self.folder.card["metrics"]
        for name, value in (("", said["accuracy"]), ("_low", said["accuracy_interval"][0])):
            text = f"Accuracy on the test split, of the model card{', lower end of its interval' if name else ''}"
            yield _family(f"card_accuracy{name}", text, ["version"], [([self.version], value)])

    def _accuracy(self) -> Iterator[GaugeMetricFamily]:
        found = self.feedback.accuracy()
        for name, end in (("", ""), ("_low", ", lower end of the 95 % interval"), ("_high", ", upper end")):
            values = [
                ([version], {"": each.right / each.pictures, "_low": each.low, "_high": each.high}[name])
                for version, each in found.items()
            ]
            yield _family(f"feedback_accuracy{name}", f"Live accuracy by feedback{end}", ["version"], values)

    def _drift(self) -> list[GaugeMetricFamily]:
        path = self.feedback.folder and self.feedback.folder / DRIFT_FILE
        if path is None or not path.is_file():
            return []
        try:
            return _drift(orjson.loads(path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            if not self._complained:
                log.warning("%s cannot be read, there are no metrics of drift: %r", path, error)
            self._complained = True
            return []


def _drift(found: dict[str, Any]) -> list[GaugeMetricFamily]:
    """Of what monitoring.drift found last."""
    version = str(found["version"])
    scores = [([version, test["property"]], float(test["statistic"])) for test in found["tests"]]
    alarm = [([version], float(found["alarm"]))]
    checked = [([version], datetime.fromisoformat(found["time"]).timestamp())]
    return [
        _family("drift_score", "Test statistic of the last drift check", ["version", "property"], scores),
        _family("drift_alarm", "Whether the last drift check found drift", ["version"], alarm),
        _family("drift_checked_timestamp_seconds", "When drift was checked last", ["version"], checked),
    ]


def _family(name: str, text: str, labels: Sequence[str], values: Values) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"classifier_{name}", text, labels=labels)
    for each, value in values:
        family.add_metric(each, value)
    return family
