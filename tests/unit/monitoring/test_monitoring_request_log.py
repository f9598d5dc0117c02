"""Lines that another version wrote, or a fault left, stop none of those that read the logs."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monitoring import request_log
from monitoring.drift import Window
from monitoring.feedback import Exported, _labels, latest, report
from monitoring.judged import Production
from monitoring.shift import Sample
from training.model.properties import PROPERTIES
from training.serving.records.log_files import FEEDBACK_FILE

CLASSES = ("cat", "dog")
DAY = datetime(2026, 11, 24, tzinfo=UTC)
RECORD: dict[str, Any] = {
    "time": "2026-11-24T12:00:00.000+00:00",
    "request_id": "a",
    "name": "cats-vs-dogs",
    "version": "3",
    "model_sha256": "a" * 16,
    "predicted": "cat",
    "confidence": 0.9,
    "total_ms": 12.5,
    "picture_sha256": "ab",
    "properties": dict.fromkeys(PROPERTIES, 1.0),
    "sketch": base64.b64encode(np.zeros(32, "<f2").tobytes()).decode(),
}
SAID: dict[str, Any] = {
    key: RECORD[key] for key in ("time", "request_id", "name", "version", "model_sha256", "predicted")
} | {"label": "cat", "captured": None}
ODD = (None, ["a"], {"a": None}, 7, True, "x", "NaN", float("inf"))


def write(path: Path, *records: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(each) + "\n" for each in records))


def others(record: dict[str, Any]) -> list[dict[str, Any]]:
    """It without each of its keys, and with odd values of each."""
    lacking = [{key: value for key, value in record.items() if key != left} for left in record]
    return lacking + [record | {key: odd} for key in record for odd in ODD]


def test_odd_predictions_stop_neither_drift_nor_the_page(tmp_path: Path) -> None:
    odd = [{"picture_sha256": f"{number:x}"} | each for number, each in enumerate(others(RECORD))]
    odd += [RECORD | {"picture_sha256": "ef", "properties": {}}, RECORD | {"picture_sha256": "ff", "predicted": "fox"}]
    write(tmp_path / "requests-h-1.jsonl", *odd, RECORD)
    production = Production(CLASSES)
    read = list(production.watching(request_log.read(tmp_path, DAY)))
    assert {each["request_id"] for each in read} == {"a", "x", "NaN"}
    drawn = Window.draw(read, 1000, CLASSES)
    sample = Sample.of_log(drawn.records, CLASSES, 512)
    assert len(sample) == len(drawn.records)
    assert RECORD["picture_sha256"] in {each["picture_sha256"] for each in drawn.records}
    assert drawn.predictions == len(read)
    assert np.isfinite(sample.figures).all()


def test_odd_feedback_stops_neither_the_report_nor_the_export(tmp_path: Path) -> None:
    write(tmp_path / FEEDBACK_FILE, *others(SAID), SAID | {"request_id": "last"})
    said = latest(tmp_path).values()
    assert report(said)["3"]["pictures"] >= 1
    assert _labels(said, Exported()).keys() <= {"x", "NaN"}
    production = Production(CLASSES)
    production.listen([tmp_path])
    assert all(time.tzinfo for each in production.said.values() for time, _ in each)


@pytest.mark.parametrize("since", [DAY, DAY.replace(hour=12)])
def test_times_without_a_zone_are_in_utc(tmp_path: Path, since: datetime) -> None:
    write(tmp_path / "requests-h-1.jsonl", RECORD | {"time": "2026-11-24T12:00:00"})
    assert [each["request_id"] for each in request_log.read(tmp_path, since)] == ["a"]
