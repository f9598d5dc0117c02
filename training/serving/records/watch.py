"""What is kept of every prediction: metrics, a line of the request log, now and then the picture itself."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.model import properties
from training.model.folder import ModelFolder
from training.params import Capture, Serve
from training.serving.engine import Seen
from training.serving.records import metrics
from training.serving.records.capture import Captures
from training.serving.records.deferred import Deferred
from training.serving.records.request_log import RequestLog
from training.serving.uploads import Upload

HELD = 64  # pictures that wait to be measured: 10 MB

log = logging.getLogger("bentoml.watch")


class Times(NamedTuple):
    """When a picture was answered (Unix time), and the seconds it took to decode it, until its run of the network
    began, for that run, and in all since its request came."""

    when: float
    decode: float
    queue: float
    inference: float
    total: float


class Answered(NamedTuple):
    """What is kept of a picture, and what the network saw of it, to be measured."""

    answer: dict[str, Any]
    novelty: float
    sketch: bytes | None
    times: Times
    facts: dict[str, Any]
    pixels: NDArray[np.uint8]
    captured: str | None


class Watch:
    """Watches one worker; it serves the model in `folder` under a name and a version."""

    def __init__(self, folder: ModelFolder, name: str, version: str, settings: Serve, capture: Capture) -> None:
        self.model = {"name": name, "version": version, "model_sha256": folder.sha256[:16]}
        self.folder = Path(settings.log_dir) if settings.log_dir else None
        self.log = RequestLog(self.folder, settings.log_max_bytes, settings.log_files) if self.folder else None
        self.captures = Captures(capture)
        self._later: Deferred[Answered] = Deferred("watch", self._keep, lambda _: metrics.LOG_ERRORS.inc())
        metrics.begin_at_zero(version, folder.classes)
        self._predictions = {
            label: metrics.PREDICTIONS.labels(label or metrics.NOT_SURE, version) for label in (*folder.classes, None)
        }
        self._abstentions = {
            reason: metrics.ABSTENTIONS.labels(reason, version) for reason in ("low_confidence", "unfamiliar")
        }
        self._confidence = metrics.CONFIDENCE.labels(version)

    def chosen(self) -> bool:
        """Whether the next picture is to be kept."""
        return self.captures.chosen()

    def ran(self, seen: Sequence[Seen]) -> None:
        """The network ran once for these."""
        metrics.BATCH.observe(len(seen))
        metrics.INFERENCE.observe(seen[0].seconds)

    def refused(self, code: str) -> None:
        """A picture among others has an error for an answer."""
        metrics.REJECTIONS.labels(code).inc()

    def predicted(self, picture: Upload, seen: Seen, answer: dict[str, Any]) -> None:
        """A picture is answered: keep it if it is chosen, and have it counted, measured and written down."""
        decoded = picture.decoded
        captured = None
        if decoded.data is not None:
            captured = self.captures.store(decoded.data, decoded.facts["picture_sha256"], decoded.facts["format"])
        queued, total = seen.begun - picture.ready, time.perf_counter() - picture.received
        times = Times(time.time(), decoded.seconds, queued, seen.seconds, total)
        self._later.add(Answered(answer, seen.novelty, seen.sketch, times, decoded.facts, decoded.pixels, captured))
        if len(self._later) > HELD:  # the thread does not keep up: pictures take memory
            self._later.flush()

    def flush(self) -> None:
        """Count and write down what was answered so far."""
        self._later.flush()
        if self.log:
            self.log.flush()

    def close(self) -> None:
        """Write down and store what is on its way."""
        self.captures.close()
        self._later.close()
        if self.log:
            self.log.close()

    def _keep(self, many: Sequence[Answered]) -> None:
        error: Exception | None = None
        for each in many:
            try:
                figures = properties.measure(each.pixels, each.facts["width"], each.facts["height"])
                self._count(each, figures)
                if self.log:
                    self.log.add(self._record(each, figures))
            except Exception as caught:  # one odd picture costs no other its line
                error = caught
                metrics.LOG_ERRORS.inc()
        if error:
            log.error("a prediction was not written down", exc_info=error)

    def _count(self, each: Answered, figures: dict[str, float]) -> None:
        self._predictions[each.answer["label"]].inc()
        if "reason" in each.answer:
            self._abstentions[each.answer["reason"]].inc()
        self._confidence.observe(each.answer["confidence"])
        metrics.DECODE.observe(each.times.decode)
        metrics.QUEUE.observe(each.times.queue)
        for name, value in figures.items():
            metrics.PROPERTIES[name].observe(value)

    def _record(self, each: Answered, figures: dict[str, float]) -> dict[str, Any]:
        """The line of the request log, see monitoring/request_log.py."""
        answer, times = each.answer, each.times
        probabilities = answer["probabilities"]
        return {
            "time": datetime.fromtimestamp(times.when, UTC).isoformat(timespec="milliseconds"),
            "request_id": answer["request_id"],
            **self.model,
            "label": answer["label"],
            "predicted": max(probabilities, key=probabilities.__getitem__),
            "reason": answer.get("reason"),
            "confidence": answer["confidence"],
            "probabilities": probabilities,
            "novelty": each.novelty,
            "decode_ms": _ms(times.decode),
            "queue_ms": _ms(times.queue),
            "inference_ms": _ms(times.inference),
            "total_ms": _ms(times.total),
            **each.facts,
            "properties": figures,
            "sketch": None if each.sketch is None else base64.b64encode(each.sketch).decode(),
            "captured": each.captured,
        }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
