"""Read the request log, one record a prediction.

    {"time": ISO 8601 in UTC, "request_id", "name", "version", "model_sha256": its first 16 digits,
     "label": class or null, "predicted": class with the highest probability,
     "reason": null | "low_confidence" | "unfamiliar", "confidence", "probabilities": {class: p}, "novelty",
     "decode_ms", "queue_ms", "inference_ms", "total_ms",
     "picture_sha256", "bytes", "format", "width", "height" (pixels, upright),
     "properties": {name: value}, see training.model.properties,
     "sketch": base64 of float16 little-endian [32], or null when the model has no reference,
     "captured": path of the stored picture, or null}

`version` is the one in MLflow, or `sha256:...` when MODEL_PATH is served. Feedback lies beside it in feedback.jsonl:
{"time", "request_id", "label", "predicted", "name", "version", "model_sha256", "captured"}.

Requests of our own checks (monitoring.performance, tests/smoke) have ids that begin with CHECK_PREFIX, those of a batch
too (`ID.0`). They are no traffic of production: neither function here returns them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from training.serving.records.log_files import FEEDBACK_FILE as FEEDBACK_FILE
from training.serving.records.log_files import Tail, request_files

CHECK_PREFIX = "check-"  # of the X-Request-ID of pictures that are sent to try the service

log = logging.getLogger(__name__)


def _of_a_check(record: dict[str, Any]) -> bool:
    return str(record.get("request_id", "")).startswith(CHECK_PREFIX)


def made_by(record: dict[str, Any], model_sha256: str) -> bool:
    """Whether that model (16 digits or more of its hash) made the prediction."""
    return model_sha256.startswith(record["model_sha256"])


def read(folder: Path, since: datetime, until: datetime | None = None) -> Iterator[dict[str, Any]]:
    """The predictions in `folder` from `since` until before `until`, each with its `time` as a datetime.

    Records come file by file: sort them where order matters. Lines that are torn, or lack what every version writes,
    are skipped and their number is logged as a warning. FileNotFoundError without the folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing: serve.log_dir names the folder of the request log")
    tail = Tail("time", "request_id", "version", "model_sha256", "predicted", "picture_sha256")
    for path in request_files(folder, since.timestamp()):
        for record in tail.read(path):
            in_time = record["time"] >= since and (until is None or record["time"] < until)
            if in_time and not _of_a_check(record):
                yield record
    if torn := tail.torn + tail.unfinished:
        log.warning("%s: %d torn lines skipped", folder, torn)


def read_feedback(folder: Path, since: datetime | None = None) -> Iterator[dict[str, Any]]:
    """What people said, from `since` on, oldest first, each with its `time` as a datetime; of several on one request
    the last one counts. Lines that are no feedback are skipped and their number is logged as a warning."""
    tail = Tail("time", "request_id", "label", "predicted", "version")
    for record in tail.read(folder / FEEDBACK_FILE):
        record.setdefault("captured", None)
        if (since is None or record["time"] >= since) and not _of_a_check(record):
            yield record
    if torn := tail.torn + tail.unfinished:
        log.warning("%s: %d lines that are no feedback skipped", folder / FEEDBACK_FILE, torn)
