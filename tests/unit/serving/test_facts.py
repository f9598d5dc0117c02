"""Facts told at a scrape: a file that cannot be read costs its own metrics, and never the scrape."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.tiny import tiny_model_folder
from training.serving.connections.shared_counters import Count, SharedCounters
from training.serving.records.facts import Facts
from training.serving.records.feedback_store import FeedbackStore
from training.serving.records.log_files import DRIFT_FILE, FEEDBACK_FILE

MODEL = {"name": "cats-vs-dogs", "run_id": None, "data_hash": "d", "git_commit": "c"}


@pytest.fixture
def facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Facts:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    logs = tmp_path / "logs"
    logs.mkdir()
    feedback = FeedbackStore(logs, None, ("cat", "dog"))
    counters = SharedCounters(tmp_path / "counters", 2)
    counters.add(Count.PICTURES, 3)
    return Facts(tiny_model_folder(tmp_path / "model"), MODEL, "sha256:ab", feedback, counters, 128)


def families(text: str) -> list[str]:
    return [family.name for family in text_string_to_metric_families(text)]


def test_what_waits_and_how_much_may(facts: Facts) -> None:
    assert "classifier_waiting_pictures 3.0" in facts.text()
    assert "classifier_waiting_limit 128.0" in facts.text()


def test_a_model_without_a_run_has_an_empty_label(facts: Facts) -> None:
    assert 'run_id=""' in facts.text()
    assert 'classifier_card_accuracy{version="sha256:ab"} 0.9' in facts.text()
    assert "classifier_feedback_accuracy{" not in facts.text()


def feedback_is_a_folder(facts: Facts, logs: Path) -> None:
    (logs / FEEDBACK_FILE).mkdir()


def drift_lacks_its_tests(facts: Facts, logs: Path) -> None:
    (logs / DRIFT_FILE).write_text(json.dumps({"version": "3"}))


def drift_is_a_folder(facts: Facts, logs: Path) -> None:
    (logs / DRIFT_FILE).mkdir()


def card_lacks_its_interval(facts: Facts, logs: Path) -> None:
    del facts.folder.card["metrics"]["accuracy_interval"]


def card_holds_no_number(facts: Facts, logs: Path) -> None:
    facts.folder.card["metrics"]["accuracy"] = None


def workers_cannot_be_looked_for(facts: Facts, logs: Path) -> None:
    (logs.parent / "gauge_livesum_1.db").mkdir()


@pytest.mark.parametrize(
    ("spoil", "part", "metric"),
    [
        (feedback_is_a_folder, FEEDBACK_FILE, "classifier_feedback"),
        (drift_lacks_its_tests, DRIFT_FILE, "classifier_drift"),
        (drift_is_a_folder, DRIFT_FILE, "classifier_drift"),
        (card_lacks_its_interval, "card", "classifier_card"),
        (card_holds_no_number, "card", "classifier_card"),
        (workers_cannot_be_looked_for, "died", None),
    ],
)
def test_what_cannot_be_told_is_logged_once_and_the_rest_stays(
    facts: Facts,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Facts, Path], None],
    part: str,
    metric: str | None,
) -> None:
    whole = set(families(facts.text()))
    spoil(facts, tmp_path / "logs")
    for _ in range(3):
        assert set(families(facts.text())) == {name for name in whole if not (metric and name.startswith(metric))}
    [told] = [record.getMessage() for record in caplog.records]
    assert part in told


def test_what_breaks_again_is_told_again(facts: Facts, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        feedback_is_a_folder(facts, tmp_path / "logs")
        facts.text()
        (tmp_path / "logs" / FEEDBACK_FILE).rmdir()
        facts.text()
    assert len(caplog.records) == 2
