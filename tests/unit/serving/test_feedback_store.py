"""Feedback is kept once and for good, whoever writes at the same time and whatever is killed; live accuracy follows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from training.common.intervals import wilson_corrected
from training.serving.errors import Fault
from training.serving.records import feedback_store, metrics
from training.serving.records.feedback_store import CHANGES, FeedbackStore
from training.serving.records.log_files import FEEDBACK_FILE
from training.serving.records.request_log import RequestLog

ROOT = Path(__file__).parents[3]
MODEL = {"name": "cats-vs-dogs", "version": "3", "model_sha256": "a" * 16}


def prediction(request_id: str, predicted: str = "cat", **changes: Any) -> dict[str, Any]:
    seen = {"time": "2026-11-24T12:00:00.000+00:00", "picture_sha256": "b" * 64, "captured": None}
    return {"request_id": request_id, "predicted": predicted, **seen, **MODEL} | changes


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


def test_a_class_may_be_spelled_in_another_form_of_unicode(tmp_path: Path, log: RequestLog) -> None:
    store = FeedbackStore(tmp_path, log, ("Hund", "K\u00e4fer"))
    assert store.record("3", "Ka\u0308fer")["label"] == "K\u00e4fer"


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


@pytest.mark.parametrize("files", [("1", "2"), ("2", "1")], ids=["read in order", "read the other way round"])
def test_an_id_with_different_pictures_is_refused_whatever_is_read_last(
    feedback: FeedbackStore, tmp_path: Path, files: tuple[str, str]
) -> None:
    for age, name in enumerate(files):
        record = prediction("reused", ("cat", "dog")[int(name) - 1], picture_sha256=name * 64)
        path = tmp_path / f"requests-other-{name}.jsonl"
        path.write_text(json.dumps(record) + "\n")
        os.utime(path, (time.time() - 10 + age,) * 2)
    for _ in range(2):
        with pytest.raises(Fault, match="different pictures") as caught:
            feedback.record("reused", "cat")
        assert (caught.value.status, caught.value.code) == (409, "ambiguous_request_id")
        assert "X-Request-ID of its own" in caught.value.hint
    assert not (tmp_path / FEEDBACK_FILE).exists()


def test_an_id_gets_ambiguous_when_another_picture_is_sent_with_it(feedback: FeedbackStore, tmp_path: Path) -> None:
    feedback.record("3", "cat")
    with (tmp_path / "requests-other-1.jsonl").open("a") as file:
        for _ in range(2):
            file.write(json.dumps(prediction("3", picture_sha256="c" * 64)) + "\n")
    with pytest.raises(Fault, match="different pictures"):
        feedback.record("3", "cat")
    assert feedback.accuracy()["3"][:2] == (1, 1)


@pytest.mark.parametrize("files", [("1", "2"), ("2", "1")], ids=["read in order", "read the other way round"])
def test_an_id_with_one_picture_is_its_latest_prediction(
    feedback: FeedbackStore, tmp_path: Path, files: tuple[str, str]
) -> None:
    records = {
        "1": prediction("again", "cat", captured="2026-11-24/bb.png", version="2"),
        "2": prediction("again", "dog", time="2026-11-24T12:00:00.500+00:00"),
    }
    for age, name in enumerate(files):
        path = tmp_path / f"requests-other-{name}.jsonl"
        path.write_text(json.dumps(records[name]) + "\n")
        os.utime(path, (time.time() - 10 + age,) * 2)
    assert feedback.record("again", "dog")["version"] == "3"
    assert feedback.accuracy().keys() == {"3"}
    assert lines(tmp_path)[-1]["captured"] == "2026-11-24/bb.png"  # the picture was kept


def test_feedback_on_an_id_that_came_back_replaces_what_was_said_before(
    feedback: FeedbackStore, tmp_path: Path, log: RequestLog
) -> None:
    former = {"time": "2026-11-24T12:00:00.000+00:00", "request_id": "3", "label": "dog", "captured": None, **MODEL}
    former |= {"predicted": "dog", "version": "2"}
    (tmp_path / FEEDBACK_FILE).write_text(json.dumps(former) + "\n")
    assert feedback.accuracy()["2"][:2] == (1, 1)
    feedback.record("3", "dog")  # the same label on the prediction of another version
    assert {version: each[:2] for version, each in feedback.accuracy().items()} == {"3": (0, 1)}


def test_two_processes_agree(feedback: FeedbackStore, tmp_path: Path, log: RequestLog) -> None:
    other = FeedbackStore(tmp_path, log, ("cat", "dog"))
    feedback.record("1", "dog")
    other.record("1", "dog")
    other.record("2", "cat")
    assert len(lines(tmp_path)) == 2
    assert feedback.accuracy() == other.accuracy() == {"3": (1, 2, *wilson_corrected(1, 2))}


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


@pytest.mark.parametrize("name", ["in a file/logs", "a file"])
def test_a_request_log_that_cannot_be_there_is_told(tmp_path: Path, log: RequestLog, name: str) -> None:
    (tmp_path / name.partition("/")[0]).touch()
    with pytest.raises(Fault, match="request log cannot be used") as caught:
        FeedbackStore(tmp_path / name, log, ("cat",)).record("3", "cat")
    assert (caught.value.status, caught.value.code) == (503, "not_recorded")
    assert "serve.log_dir" in caught.value.hint


def test_the_hint_says_which_ids_are_known(feedback: FeedbackStore) -> None:
    with pytest.raises(Fault) as caught:
        feedback.record("of /explain", "cat")
    assert all(
        part in caught.value.hint
        for part in ("/predict, ", "/predict_batch (ID.0, ID.1", "/explain and /heatmap are not")
    )


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
from training.serving.records import feedback_store, metrics
from training.serving.records.feedback_store import FeedbackStore
from training.serving.records.request_log import RequestLog
folder = Path(sys.argv[1])
log = RequestLog(folder, 10_000_000, 3)
for number in range(2_000):
    log.add({"request_id": f"{sys.argv[2]}-{number}", "predicted": "cat", "name": "n", "version": "3",
             "model_sha256": "a", "captured": None, "picture_sha256": "b", "time": "2026-11-24T12:00:00.000+00:00"})
feedback = FeedbackStore(folder, log, ("cat", "dog"))
for number in range(2_000):
    feedback.record(f"{sys.argv[2]}-{number}", "cat")
    print(number, flush=True)
"""


@pytest.mark.slow
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


def test_the_label_of_one_prediction_is_not_changed_for_ever(feedback: FeedbackStore, tmp_path: Path) -> None:
    for number in range(CHANGES + 1):
        feedback.record("3", ("cat", "dog")[number % 2])
    size = (tmp_path / FEEDBACK_FILE).stat().st_size
    with pytest.raises(Fault, match="changed 10 times") as caught:
        feedback.record("3", "dog")
    assert (caught.value.status, caught.value.code) == (409, "too_many_changes")
    assert feedback.record("3", "cat")["correct"] is True  # as it stands
    assert (tmp_path / FEEDBACK_FILE).stat().st_size == size
    with pytest.raises(Fault, match="changed 10 times"):  # in a worker that was started later, too
        FeedbackStore(tmp_path, feedback.log, ("cat", "dog")).record("3", "dog")


def test_lines_that_others_replaced_go_and_what_was_said_last_stays(
    feedback: FeedbackStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback_store, "REPLACED", 3)
    other = FeedbackStore(tmp_path, feedback.log, ("cat", "dog"))
    for label in ("cat", "dog", "cat", "dog", "cat"):
        other.record("3", label)
    feedback.record("4", "dog")
    assert [line["label"] for line in lines(tmp_path)] == ["cat", "dog", "cat", "dog", "cat", "dog"]
    feedback.record("3", "dog")
    feedback.record("3", "cat")
    assert [(line["request_id"], line["label"]) for line in lines(tmp_path)] == [("4", "dog"), ("3", "cat")]
    other.record("5", "cat")  # goes to the new file
    assert len(lines(tmp_path)) == 3
    again = FeedbackStore(tmp_path, feedback.log, ("cat", "dog"))
    assert feedback.accuracy()["3"][:2] == other.accuracy()["3"][:2] == again.accuracy()["3"][:2] == (2, 3)


def test_series_of_feedback_are_as_many_as_classes_not_as_pairs(tmp_path: Path) -> None:
    classes = [str(number) for number in range(30)]
    metrics.begin_at_zero("many", classes)
    for label in classes:
        metrics.said("many", "3", label, classes)
    [family] = metrics.FEEDBACK.collect()
    found = {
        tuple(each.labels.values()): each.value
        for each in family.samples
        if each.labels["version"] == "many" and each.name.endswith("_total")
    }
    assert len(found) == 2 * len(classes)
    assert found["many", "3", "3"] == 1
    assert found["many", "3", "another"] == 29
