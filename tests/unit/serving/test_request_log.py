"""The request log is bounded, never costs an answer, and is read back as it was written."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from monitoring import request_log as reader
from training.serving.records import deferred, metrics
from training.serving.records.log_files import HOST, QUIET_S, request_file
from training.serving.records.request_log import RequestLog

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
THEN = NOW - timedelta(days=1)


def record(number: int, time: datetime = NOW, model: str = "a" * 16) -> dict[str, Any]:
    made = {"time": time.isoformat(timespec="milliseconds"), "request_id": str(number), "model_sha256": model}
    return made | {"version": "3", "predicted": "cat", "picture_sha256": "b"}


@pytest.fixture
def writing(tmp_path: Path) -> Iterator[RequestLog]:
    log = RequestLog(tmp_path / "logs", 2000, 3)
    yield log
    log.close()


def lost() -> float:
    value: float = metrics.LOG_ERRORS._value.get()
    return value


def test_what_was_added_is_read_back(writing: RequestLog, tmp_path: Path) -> None:
    for number in range(10):
        writing.add(record(number))
    writing.close()
    found = list(reader.read(tmp_path / "logs", THEN))
    assert [each["request_id"] for each in found] == [str(number) for number in range(10)]
    assert {each["time"] for each in found} == {NOW}


def test_times_and_a_model_are_chosen(writing: RequestLog, tmp_path: Path) -> None:
    for hour in range(10):
        writing.add(record(hour, THEN + timedelta(hours=hour), "ab"[hour % 2] * 16))
    writing.flush()
    since, until = THEN + timedelta(hours=2), THEN + timedelta(hours=8)
    found = reader.read(tmp_path / "logs", since, until)
    chosen = [each for each in found if reader.made_by(each, "a" * 64)]
    assert [each["request_id"] for each in chosen] == ["2", "4", "6"]


def test_what_our_own_checks_sent_is_left_out(writing: RequestLog, tmp_path: Path) -> None:
    for name in ("check-1", "check-2.0", "check-2.1", "a-check-", "checked.0"):
        writing.add(record(0) | {"request_id": name})
    writing.flush()
    said = {"label": "cat", "predicted": "cat", "version": "3"}
    lines = [json.dumps(record(0) | said | {"request_id": name}) + "\n" for name in ("check-1", "7")]
    (tmp_path / "logs/feedback.jsonl").write_text("".join(lines))
    found = reader.read(tmp_path / "logs", THEN)
    assert [each["request_id"] for each in found] == ["a-check-", "checked.0"]
    assert [each["request_id"] for each in reader.read_feedback(tmp_path / "logs")] == ["7"]


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"serve\.log_dir"):
        list(reader.read(tmp_path / "none", THEN))


def test_a_torn_last_line_is_skipped_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "requests-1.jsonl").write_text(json.dumps(record(0)) + '\n{"time":"2026')
    assert len(list(reader.read(tmp_path, THEN))) == 1
    assert "1 torn lines" in caplog.text


def test_the_files_are_bounded_in_size_and_number_also_over_runs(writing: RequestLog, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir(exist_ok=True)
    for former in range(5):  # of workers that are gone; process ids beyond any real one
        path = logs / f"requests-{HOST}-{2**22 + 1 + former}.jsonl"
        path.write_text("{}\n")
        os.utime(path, (former, former))
    for number in range(100):
        writing.add(record(number))
        if number % 5 == 4:
            writing.flush()
    writing.close()
    name = request_file(logs).name
    assert sorted(path.name for path in logs.iterdir()) == [name, f"{name}.1", f"{name}.2"]
    assert all(path.stat().st_size <= 2000 for path in logs.iterdir())
    found = sorted(int(each["request_id"]) for each in reader.read(logs, THEN))
    assert found == list(range(100 - len(found), 100))
    assert len(found) >= 30


def test_the_file_another_living_worker_writes_is_never_deleted(writing: RequestLog, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir(exist_ok=True)
    beside, elsewhere, left = (
        logs / f"requests-{HOST}-{os.getppid()}.jsonl",
        *(logs / f"requests-pod-{name}-7.jsonl" for name in "ab"),
    )
    now = time.time()
    for path, age in ((beside, now), (elsewhere, QUIET_S / 2), (left, 2 * QUIET_S)):
        path.write_text("{}\n")
        os.utime(path, (now - age, now - age))
    for number in range(100):
        writing.add(record(number))
        writing.flush()
    assert (beside.exists(), elsewhere.exists(), left.exists()) == (True, True, False)


@pytest.mark.parametrize("kind", ["full disk", "no folder can be made"])
def test_a_disk_that_takes_nothing_is_counted_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    folder = tmp_path / "logs"
    if kind == "full disk":
        folder.mkdir()
        request_file(folder).symlink_to("/dev/full")
    else:
        folder.write_text("a file")
    logging.getLogger("bentoml").propagate = True
    log, before = RequestLog(folder, 2000, 3), lost()
    for number in range(7):
        log.add(record(number))
        if number % 3 == 2:
            log.flush()
    log.close()
    assert lost() - before == 7
    assert caplog.text.count("predictions go on unrecorded") == 1


def test_a_mended_disk_is_written_to_again_on_a_new_line(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.write_text("a file")
    log = RequestLog(folder, 2000, 3)
    log.add(record(1))
    log.flush()
    folder.unlink()
    log.add(record(2))
    log.flush()
    log.add(record(3))
    log.close()
    assert [each["request_id"] for each in reader.read(folder, THEN)] == ["2", "3"]


def test_a_record_that_is_no_json_is_counted(writing: RequestLog, tmp_path: Path) -> None:
    before = lost()
    for number in range(3):
        writing.add(record(number) | ({"label": {1}} if number == 1 else {}))
        writing.flush()
    assert lost() - before == 1
    assert [each["request_id"] for each in reader.read(tmp_path / "logs", THEN)] == ["0", "2"]


def test_a_stream_that_broke_is_counted_and_opened_anew(writing: RequestLog, tmp_path: Path) -> None:
    """As on a network disk that went away: the file's descriptor is good for nothing any more."""
    before = lost()
    writing.add(record(1))
    writing.flush()
    path = request_file(tmp_path / "logs")
    [opened] = [file.fd for file in psutil.Process().open_files() if Path(file.path).samefile(path)]
    with Path(os.devnull).open("rb") as useless:
        os.dup2(useless.fileno(), opened)
    for number in (2, 3):
        writing.add(record(number))
        writing.flush()
    assert lost() - before == 1
    assert [each["request_id"] for each in reader.read(tmp_path / "logs", THEN)] == ["1", "3"]


def test_a_queue_that_is_full_loses_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferred, "WAITING", 5)
    monkeypatch.setattr(deferred, "EVERY_S", 60)
    log, before = RequestLog(tmp_path, 10_000, 3), lost()
    for number in range(8):
        log.add(record(number))
    log.close()
    assert lost() - before == 3
    assert len(list(reader.read(tmp_path, THEN))) == 5


def test_many_threads_may_add_and_flush(tmp_path: Path) -> None:
    log = RequestLog(tmp_path, 10_000_000, 3)

    def work(start: int) -> None:
        for number in range(start, start + 500):
            log.add(record(number))
            if number % 50 == 0:
                log.flush()

    threads = [threading.Thread(target=work, args=(500 * index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert sorted(int(each["request_id"]) for each in reader.read(tmp_path, THEN)) == list(range(2000))
