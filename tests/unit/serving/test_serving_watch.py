"""What is kept of predictions: what cannot be is counted, and costs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny import SOURCE, tiny_model_folder
from training.serving import settings
from training.serving.engine import Seen
from training.serving.records import metrics
from training.serving.records.log_files import Tail, request_files
from training.serving.records.watch import Watch
from training.serving.uploads import Decoded, Upload


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    environ = {"SERVE_LOG_DIR": str(tmp_path / "logs")}
    chosen = settings.load(SOURCE, environ), settings.load_capture(SOURCE, environ)
    return Watch(tiny_model_folder(tmp_path / "model"), "cats-vs-dogs", "3", *chosen)


def predict(watch: Watch, request_id: str, **facts: Any) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    known = {"picture_sha256": "ab", "bytes": 1, "format": "PNG", "width": 40, "height": 40}
    picture = Upload(Decoded(pixels, known | facts, 0.001, None), request_id, True, 0.0, 0.0)
    seen = Seen(np.array([0.9, 0.1], np.float32), 0.0, np.zeros((2, 4, 4), np.float32), None, 0.0, 0.001)
    probabilities = {"cat": 0.9, "dog": 0.1}
    answer = {"label": "cat", "confidence": 0.9, "probabilities": probabilities, "request_id": request_id}
    watch.predicted(picture, seen, answer)


def test_a_prediction_that_cannot_be_measured_is_counted_and_the_others_are_kept(
    watch: Watch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = metrics.LOG_ERRORS._value.get()
    predict(watch, "first")
    predict(watch, "odd", width=None)
    predict(watch, "last")
    watch.close()
    tail = Tail()
    kept = [each["request_id"] for path in request_files(tmp_path / "logs") for each in tail.read(path)]
    assert kept == ["first", "last"]
    assert metrics.LOG_ERRORS._value.get() - before == 1
    assert caplog.text.count("a prediction was not written down") == 1
