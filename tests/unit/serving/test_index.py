"""The index knows what the files say, also after a restart, a rotation, a deletion; the rest is searched."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from training.serving.records import index as index_module
from training.serving.records.index import Index, Known
from training.serving.records.log_files import FEEDBACK_FILE

MODEL = {"name": "cats-vs-dogs", "version": "3", "model_sha256": "a" * 16}


def add(path: Path, *ids: str, **changes: Any) -> None:
    seen = {"time": "2026-11-24T12:00:00.000+00:00", "picture_sha256": "b" * 64, "captured": None, "predicted": "cat"}
    with path.open("a") as file:
        file.writelines(json.dumps(seen | MODEL | {"request_id": each} | changes) + "\n" for each in ids)


def say(folder: Path, label: str, *ids: str) -> None:
    with (folder / FEEDBACK_FILE).open("a") as file:
        for each in ids:
            file.write(json.dumps({"request_id": each, "label": label, "version": "3", "predicted": "cat"}) + "\n")


def follow(index: Index) -> int:
    steps = 0
    while index.follow():
        steps += 1
    return steps


def rows(index: Index, table: str) -> list[Any]:
    with sqlite3.connect(index.path) as database:
        return list(database.execute(f"SELECT * FROM {table}"))


def known(index: Index, request_id: str) -> Known | None:
    found, errors = index.prediction(request_id)
    assert not errors
    return found


def test_what_is_found_is_the_same_before_and_after_the_index_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "12":
        add(tmp_path / f"requests-h-{name}.jsonl", "a", f"b{name}", f'"{name}')
        add(tmp_path / f"requests-h-{name}.jsonl", "several", picture_sha256=name * 64)
    index = Index(tmp_path)
    ids = ("a", "b1", "b2", '"1', "several", "b", "none")
    searched = [known(index, each) for each in ids]
    monkeypatch.setattr(index_module, "SEARCHED", 20)  # every id stands astride of some
    assert [known(index, each) for each in ids] == searched
    assert [found is None for found in searched] == [False] * 5 + [True] * 2
    assert follow(index) == 2
    assert len(rows(index, "prediction")) == 8
    assert [known(index, each) for each in ids] == searched


def test_a_restart_reads_no_file_again_also_when_it_was_renamed(tmp_path: Path) -> None:
    path = tmp_path / "requests-h-1.jsonl"
    add(path, "a", "b")
    follow(Index(tmp_path))
    path.rename(tmp_path / "requests-h-1.jsonl.1")
    add(path, "c")
    again = Index(tmp_path)
    assert follow(again) == 1
    assert {row[1] for row in rows(again, "prediction")} == {"a", "b", "c"}


def test_it_is_brought_up_to_date_in_small_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "STEP", 1000)
    add(tmp_path / "requests-h-1.jsonl", *map(str, range(100)))
    index = Index(tmp_path)
    assert follow(index) > 10
    assert len(rows(index, "prediction")) == 100


def test_predictions_go_with_their_files(tmp_path: Path) -> None:
    for name in "12":
        add(tmp_path / f"requests-h-{name}.jsonl", name)
    index = Index(tmp_path)
    follow(index)
    (tmp_path / "requests-h-1.jsonl").unlink()
    follow(index)
    assert known(index, "1") is None
    assert [row[1] for row in rows(index, "prediction")] == ["2"]


def test_live_accuracy_follows_a_file_of_feedback_that_was_put_in_place_of_another(tmp_path: Path) -> None:
    index = Index(tmp_path)
    say(tmp_path, "cat", "1", "2", "3")
    follow(index)
    assert index.accuracy() == {"3": (3, 3)}
    (tmp_path / FEEDBACK_FILE).unlink()
    say(tmp_path, "dog", "2")
    follow(index)
    assert index.accuracy() == {"3": (0, 1)}
    (tmp_path / FEEDBACK_FILE).unlink()
    follow(index)
    assert index.accuracy() == {}


def test_who_reads_waits_for_no_writer(tmp_path: Path) -> None:
    index, other = Index(tmp_path), Index(tmp_path)
    say(tmp_path, "cat", "1")
    follow(index)
    say(tmp_path, "cat", "2")
    with other._write():  # another worker is at it
        begun = time.monotonic()
        assert index.follow_feedback(wait=False) is False
        assert index.accuracy() == {"3": (1, 1)}
        assert index.said("2") is not None
        assert time.monotonic() - begun < index_module.BUSY_S / 2
    assert index.follow_feedback(wait=False) is True
    assert index.accuracy() == {"3": (2, 2)}


def test_a_damaged_index_is_made_anew(tmp_path: Path) -> None:
    add(tmp_path / "requests-h-1.jsonl", "a")
    first = Index(tmp_path)
    follow(first)
    first.close()
    first.path.write_bytes(b"no database" * 1000)
    index = Index(tmp_path)
    with pytest.raises(OSError, match="not a database"):
        index.prediction("a")
    assert known(index, "a") is not None
    assert follow(index) == 1


def test_indexes_that_others_left_go_after_a_week(tmp_path: Path) -> None:
    mine = Index(tmp_path)
    left, young = tmp_path / "index-1-left.sqlite3", tmp_path / "index-1-young.sqlite3-wal"
    for path in (left, young, mine.path):
        path.touch()
        os.utime(path, (0, 0))
    os.utime(young)
    mine.clean()
    assert [path for path in (left, young, mine.path) if path.exists()] == [young, mine.path]
