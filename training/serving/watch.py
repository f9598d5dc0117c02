"""What is kept of every prediction: metrics, a line of the request log, now and then the picture itself."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training.inference import ModelFolder
from training.params import Capture, Serve
from training.serving import metrics
from training.serving.capture import Captures
from training.serving.engine import Seen
from training.serving.request_log import RequestLog
from training.serving.requests import Picture


class Watch:
    """Watches one worker; it serves the model in `folder` under a name and a version."""

    def __init__(self, folder: ModelFolder, name: str, version: str, settings: Serve, capture: Capture) -> None:
        self.model = {"name": name, "version": version, "model_sha256": folder.sha256[:16]}
        self.folder = Path(settings.log_dir) if settings.log_dir else None
        self.log = RequestLog(self.folder, settings.log_max_bytes, settings.log_files) if self.folder else None
        self.captures = Captures(capture)
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

    def predicted(self, picture: Picture, seen: Seen, answer: dict[str, Any]) -> None:
        """A picture is answered: count it, measure it, write it down, keep it if it is chosen."""
        self._predictions[answer["label"]].inc()
        if "reason" in answer:
            self._abstentions[answer["reason"]].inc()
        self._confidence.observe(answer["confidence"])
        metrics.DECODE.observe(picture.decoded.seconds)
        metrics.QUEUE.observe(seen.begun - picture.ready)
        for name, value in picture.decoded.properties.items():
            metrics.PROPERTIES[name].observe(value)
        captured = self._captured(picture)
        if self.log:
            self.log.add(self._record(picture, seen, answer, captured))

    def close(self) -> None:
        """Write down and store what is on its way."""
        self.captures.close()
        if self.log:
            self.log.close()

    def _captured(self, picture: Picture) -> str | None:
        decoded = picture.decoded
        if decoded.data is None:
            return None
        return self.captures.store(decoded.data, decoded.facts["picture_sha256"], decoded.facts["format"])

    def _record(self, picture: Picture, seen: Seen, answer: dict[str, Any], captured: str | None) -> dict[str, Any]:
        """The line of the request log, see monitoring/request_log.py."""
        probabilities = answer["probabilities"]
        return {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": picture.request_id,
            **self.model,
            "label": answer["label"],
            "predicted": max(probabilities, key=probabilities.__getitem__),
            "reason": answer.get("reason"),
            "confidence": answer["confidence"],
            "probabilities": probabilities,
            "novelty": seen.novelty,
            "decode_ms": _ms(picture.decoded.seconds),
            "queue_ms": _ms(seen.begun - picture.ready),
            "inference_ms": _ms(seen.seconds),
            "total_ms": _ms(time.perf_counter() - picture.received),
            **picture.decoded.facts,
            "properties": picture.decoded.properties,
            "sketch": None if seen.sketch is None else base64.b64encode(seen.sketch).decode(),
            "captured": captured,
        }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
