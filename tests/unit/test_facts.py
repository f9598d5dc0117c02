"""Facts told at a scrape: a file that cannot be read costs its own metrics, and never the scrape."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tiny import tiny_model_folder
from training.serving.board import Board, Figure
from training.serving.facts import Facts
from training.serving.feedback_store import FeedbackStore
from training.serving.log_files import FEEDBACK_FILE

MODEL = {"name": "cats-vs-dogs", "run_id": None, "data_hash": "d", "git_commit": "c"}


@pytest.fixture
def facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Facts:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    logs = tmp_path / "logs"
    logs.mkdir()
    feedback = FeedbackStore(logs, None, ("cat", "dog"))
    board = Board(tmp_path / "board", 1)
    board.add(Figure.PICTURES, 3)
    return Facts(tiny_model_folder(tmp_path / "model"), MODEL, "sha256:ab", feedback, board, 128)


def test_what_waits_and_how_much_may(facts: Facts) -> None:
    assert "classifier_waiting_pictures 3.0" in facts.text()
    assert "classifier_waiting_limit 128.0" in facts.text()


def test_a_model_without_a_run_has_an_empty_label(facts: Facts) -> None:
    assert 'run_id=""' in facts.text()
    assert 'classifier_card_accuracy{version="sha256:ab"} 0.9' in facts.text()
    assert "classifier_feedback_accuracy{" not in facts.text()


def test_feedback_that_cannot_be_read_is_told_in_the_log(
    facts: Facts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "logs" / FEEDBACK_FILE).mkdir()
    assert facts.text() == ""
    assert "IsADirectoryError" in caplog.text


def test_a_broken_drift_file_is_told_once_and_the_rest_stays(
    facts: Facts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "logs/drift.json").write_text(json.dumps({"version": "3"}))
    assert "classifier_model_info" in facts.text()
    assert "drift" not in facts.text()
    assert caplog.text.count("drift.json cannot be read") == 1
