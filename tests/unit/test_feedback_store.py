"""Feedback is kept once and for good, whoever writes at the same time and whatever is killed; live accuracy follows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from training.metrics import accuracy_interval
from training.serving.errors import Fault
from training.serving.feedback_store import FeedbackStore, Recent, wilson
from training.serving.log_files import FEEDBACK_FILE
from training.serving.request_log import RequestLog

ROOT = Path(__file__).parent.parent.parent
MODEL = {"name": "cats-vs-dogs", "version": "3", "model_sha256": "a" * 16}


def prediction(request_id: str, predicted: str = "cat", **changes: Any) -> dict[str, Any]:
    return {"request_id": request_id, "predicted": predicted, "captured": None, **MODEL} | changes


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RequestLog]:
    opened = RequestLog(tmp_path, 100_000, 3)
    for number in range(20):
        opened.add(prediction(str(number)))
    yield opened
    opened.close()


@pytest.fixture
def feedback(tmp_path: Path, log: RequestLog) -> FeedbackStore:
    return FeedbackStore(tmp_path, log, ("cat", "dog"))


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / FEEDBACK_FILE).read_text().splitlines()]


def test_feedback_is_kept_with_the_model_that_predicted(feedback: FeedbackStore, tmp_path: Path) -> None:
    answer = feedback.record("3", "dog")
    assert answer == {"request_id": "3", "label": "dog", "predicted": "cat", "correct": False, "version": "3"}
    [kept] = lines(tmp_path)
    assert set(kept) == {"time", "request_id", "label", "predicted", "captured", *MODEL}
    assert kept | MODEL | {"request_id": "3", "label": "dog", "predicted": "cat"} == kept


def test_saying_it_again_changes_nothing_and_the_later_of_two_labels_counts(
    feedback: FeedbackStore, tmp_path: Path
) -> None:
    first = feedback.record("3", "dog")
    assert feedback.record("3", "dog") == first
    assert len(lines(tmp_path)) == 1
    assert feedback.accuracy()["3"][:2] == (0, 1)
    assert feedback.record("3", "cat")["correct"] is True
    assert feedback.accuracy()["3"][:2] == (1, 1)
    assert [line["label"] for line in lines(tmp_path)] == ["dog", "cat"]


@pytest.mark.parametrize(
    ("request_id", "label", "status", "code"),
    [("none", "dog", 404, "unknown_request"), ("3", "horse", 422, "unknown_label")],
)
def test_what_is_unknown_is_refused(
    feedback: FeedbackStore, tmp_path: Path, request_id: str, label: str, status: int, code: str
) -> None:
    with pytest.raises(Fault) as caught:
        feedback.record(request_id, label)
    assert (caught.value.status, caught.value.code) == (status, code)
    assert not (tmp_path / FEEDBACK_FILE).exists()


def test_without_a_request_log_every_request_is_unknown() -> None:
    with pytest.raises(Fault, match="no prediction"):
        FeedbackStore(None, None, ("cat",)).record("3", "cat")
    assert FeedbackStore(None, None, ("cat",)).accuracy() == {}


def test_requests_of_other_workers_and_former_runs_are_known(feedback: FeedbackStore, tmp_path: Path) -> None:
    (tmp_path / "requests-1.jsonl.1").write_text(json.dumps(prediction("former", version="2")) + "\n")
    assert feedback.record("former", "cat")["version"] == "2"
    with (tmp_path / "requests-1.jsonl").open("a") as file:
        file.write(json.dumps(prediction("other", "dog")) + "\n")
    assert feedback.record("other", "dog")["correct"] is True
    assert feedback.accuracy().keys() == {"2", "3"}


def test_two_processes_agree(feedback: FeedbackStore, tmp_path: Path, log: RequestLog) -> None:
    other = FeedbackStore(tmp_path, log, ("cat", "dog"))
    feedback.record("1", "dog")
    other.record("1", "dog")
    other.record("2", "cat")
    assert len(lines(tmp_path)) == 2
    assert feedback.accuracy() == other.accuracy() == {"3": (1, 2, *wilson(1, 2))}


def test_a_restart_knows_what_was_said(feedback: FeedbackStore, tmp_path: Path, log: RequestLog) -> None:
    feedback.record("1", "cat")
    again = FeedbackStore(tmp_path, log, ("cat", "dog"))
    assert again.accuracy() == feedback.accuracy()
    again.record("1", "cat")
    assert len(lines(tmp_path)) == 1


def test_what_a_kill_left_unfinished_does_not_spoil_the_next_line(feedback: FeedbackStore, tmp_path: Path) -> None:
    feedback.record("1", "cat")
    with (tmp_path / FEEDBACK_FILE).open("a") as file:
        file.write('{"time": "2026-')
    feedback.record("2", "dog")
    again = FeedbackStore(tmp_path, feedback.log, ("cat", "dog"))
    assert again.accuracy()["3"][:2] == (1, 2)


def test_records_that_lack_a_key_are_passed_over(feedback: FeedbackStore, tmp_path: Path) -> None:
    (tmp_path / "requests-1.jsonl").write_text('{"request_id": "other"}\n')
    (tmp_path / FEEDBACK_FILE).write_text('{"request_id": "1", "label": "cat", "predicted": "cat"}\n')
    assert feedback.accuracy() == {}
    assert feedback.record("2", "cat")["correct"] is True
    assert feedback.accuracy()["3"][:2] == (1, 1)


def test_a_request_log_that_cannot_be_read_costs_only_its_own_predictions(
    feedback: FeedbackStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "requests-other-7.jsonl").mkdir()
    for request_id in ("1", "2"):
        assert feedback.record(request_id, "cat")["correct"] is True
    with pytest.raises(Fault) as caught:
        feedback.record("of the other", "cat")
    assert (caught.value.status, caught.value.code) == (503, "not_recorded")
    assert caplog.text.count("requests-other-7.jsonl is not taken") == 1


def test_a_full_disk_is_told_and_leaves_no_half_a_line(
    feedback: FeedbackStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feedback.record("1", "cat")
    whole = (tmp_path / FEEDBACK_FILE).read_bytes()
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda file, data: write(file, data[:20]))
        with pytest.raises(Fault, match="No space left") as caught:
            feedback.record("2", "cat")
    assert (caught.value.status, caught.value.code) == (503, "not_recorded")
    assert (tmp_path / FEEDBACK_FILE).read_bytes() == whole
    assert feedback.record("2", "cat")["correct"] is True


WRITER = """
import sys
from pathlib import Path
from training.serving.feedback_store import FeedbackStore
from training.serving.request_log import RequestLog
folder = Path(sys.argv[1])
log = RequestLog(folder, 10_000_000, 3)
for number in range(2_000):
    log.add({"request_id": f"{sys.argv[2]}-{number}", "predicted": "cat", "name": "n", "version": "3",
             "model_sha256": "a", "captured": None})
feedback = FeedbackStore(folder, log, ("cat", "dog"))
for number in range(2_000):
    feedback.record(f"{sys.argv[2]}-{number}", "cat")
    print(number, flush=True)
"""


def test_what_was_answered_survives_kill_9_of_several_writers(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [
        subprocess.Popen([*command, name], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for name in "ab"
    ]
    answered: dict[str, int] = {}
    for name, writer in zip("ab", writers, strict=True):
        assert writer.stdout
        for _ in range(30):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        answered[name] = 30 + len(writer.stdout.readlines())
        writer.wait()
        writer.stdout.close()
    kept = [line["request_id"] for line in lines(tmp_path)]
    assert len(kept) == len(set(kept))
    for name, count in answered.items():
        assert {f"{name}-{number}" for number in range(count)} <= set(kept)
    assert FeedbackStore(tmp_path, None, ("cat",)).accuracy()["3"][:2] == (len(kept), len(kept))


@pytest.mark.parametrize(("right", "count"), [(0, 1), (1, 1), (7, 10), (980, 1000), (0, 50)])
def test_wilson_is_the_interval_of_the_model_card(right: int, count: int) -> None:
    assert wilson(right, count) == pytest.approx(accuracy_interval(right, count), abs=1e-9)


def test_memory_of_requests_is_bounded_and_the_latest_stay() -> None:
    recent: Recent[int] = Recent(100)
    for number in range(1000):
        recent[str(number)] = number
    assert len(recent._old) + len(recent._new) <= 100
    assert all(recent.get(str(number)) == number for number in range(950, 1000))
    assert recent.get("0") is None
