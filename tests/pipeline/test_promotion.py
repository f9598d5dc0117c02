"""What travels beside the pin: how the champion was judged, and who was champion before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.pipeline.acting import NAME
from tests.pipeline.test_promote import run
from training.model import pin
from training.model.pin import PROMOTION_FILE, read_promotion
from training.registry import __main__ as registry
from training.registry.mlflow_store import Registry


def test_the_record_is_of_the_pinned_model_with_its_verdict_and_former_champions(two: Path) -> None:
    record = read_promotion(pin.read().model_sha256)
    assert record is not None
    assert record["champion"]["version"] == "2"
    assert record["champion"]["promoted_because"] == "passed the gate"
    assert record["verdict"] == json.loads(Path("models/verdict.json").read_text())
    [former] = record["former"]
    assert former["version"] == "1"
    assert former["rolled_back"] is None
    assert former["accuracy"] == Registry(NAME).version("1").tags["accuracy"]


def test_after_a_rollback_it_tells_why(two: Path) -> None:
    registry.rollback(Registry(NAME), "it confused horses")
    record = read_promotion(pin.read().model_sha256)
    assert record is not None
    assert record["champion"]["promoted_because"] == "rollback: it confused horses"
    assert record["verdict"]["candidate"]["version"] == "1"
    assert [one["rolled_back"].endswith("it confused horses") for one in record["former"]] == [True]


def test_a_lost_record_is_written_again_by_the_next_promote(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = PROMOTION_FILE.read_bytes()
    PROMOTION_FILE.unlink()
    assert run(monkeypatch) == 0
    assert PROMOTION_FILE.read_bytes() == kept


def test_a_record_of_another_model_is_none(two: Path) -> None:
    assert read_promotion("0" * 64) is None
    PROMOTION_FILE.write_text("{")
    assert read_promotion(pin.read().model_sha256) is None
