"""Metrics that are facts of the whole service, worked out at every scrape: which model, what
waits, live accuracy, drift.

Whichever worker is asked reads them from the same files, so there is nothing to add up over workers, and nothing of a
worker that died. Each part fails alone: a damaged file must not look as if no model were served.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import orjson
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from training.model.folder import ModelFolder
from training.serving.connections import metric_files
from training.serving.connections.shared_counters import Count, SharedCounters
from training.serving.records.feedback_store import FeedbackStore
from training.serving.records.log_files import DRIFT_FILE, FEEDBACK_FILE

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
        counters: SharedCounters,
        max_waiting: int,
    ) -> None:
        self.folder, self.model, self.version, self.feedback = folder, model, version, feedback
        self.counters, self.max_waiting = counters, max_waiting
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._failing: set[str] = set()

    def text(self) -> str:
        """In the text format of Prometheus."""
        return generate_latest(self._registry).decode()

    def describe(self) -> list[GaugeMetricFamily]:
        return []  # nothing is read before the first scrape

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield from self._whole("the model", self._info)
        yield from self._whole("its model card", self._card)
        yield from self._whole("workers that died", self._forget_the_dead)
        yield from self._whole("waiting pictures", self._waiting)
        yield from self._whole(f"live accuracy ({FEEDBACK_FILE})", self._accuracy)
        yield from self._whole(f"drift ({DRIFT_FILE})", self._drift)

    def _whole(self, name: str, part: Callable[[], Iterable[GaugeMetricFamily]]) -> list[GaugeMetricFamily]:
        """A part, or nothing of it when it cannot be told: the log says so once until it can be told again."""
        try:
            lines = list(part())
        except Exception:  # BentoML would leave the whole scrape without an answer until its timeout
            if name not in self._failing:
                log.exception("metrics of %s cannot be told to Prometheus", name)
            self._failing.add(name)
            return []
        self._failing.discard(name)
        return lines

    def _info(self) -> Iterator[GaugeMetricFamily]:
        labels = {name: self.model[name] or "" for name in ("name", "run_id", "data_hash", "git_commit")}
        labels |= {"version": self.version, "model_sha256": self.folder.sha256[:16]}
        yield _family("model_info", "The model that is served", list(labels), [(list(labels.values()), 1.0)])

    def _forget_the_dead(self) -> tuple[()]:
        self.counters.forget_the_dead(metric_files.forget)
        return ()

    def _waiting(self) -> Iterator[GaugeMetricFamily]:
        waiting = self.counters.all(Count.PICTURES)
        yield _family("waiting_pictures", "Pictures accepted and not yet answered", [], [([], waiting)])
        yield _family("waiting_limit", "Pictures that may wait", [], [([], self.max_waiting)])

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
        counts = [([version], each.pictures) for version, each in found.items()]
        yield _family("feedback_pictures", "Predictions with feedback, of which live accuracy is", ["version"], counts)

    def _drift(self) -> list[GaugeMetricFamily]:
        path = self.feedback.folder and self.feedback.folder / DRIFT_FILE
        if path is None or not path.exists():
            return []
        return _drift(orjson.loads(path.read_bytes()))


def _drift(found: dict[str, Any]) -> list[GaugeMetricFamily]:
    """Of what monitoring.drift found last; scores and alarm are of the last check that had enough pictures."""
    version = str(found["version"])
    scores = [([version, test["property"]], float(test["statistic"])) for test in found["tests"]]
    alarm = [([version], float(found["alarm"]))]
    since = found.get("alarm_since") or found["time"]
    began = [([version], datetime.fromisoformat(since).timestamp())] if found["alarm"] else []
    enough = [([version], float(found["enough_pictures"]))]
    checked = [([version], datetime.fromisoformat(found["time"]).timestamp())]
    return [
        _family(
            "drift_score", "Test statistic of the last drift check that could tell", ["version", "property"], scores
        ),
        _family("drift_alarm", "Whether the last drift check that could tell found drift", ["version"], alarm),
        _family(
            "drift_alarm_since_timestamp_seconds", "When the alarm that stands was first found", ["version"], began
        ),
        _family("drift_enough_pictures", "Whether the last drift check could tell", ["version"], enough),
        _family("drift_checked_timestamp_seconds", "When drift was checked last", ["version"], checked),
    ]


def _family(name: str, text: str, labels: Sequence[str], values: Values) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"classifier_{name}", text, labels=labels)
    for each, value in values:  # converted here: what is no number fails its own part, not the whole page
        family.add_metric([str(label) for label in each], float(value))
    return family
