"""Lines are read whole, each once, whatever happens to the file meanwhile."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from training.serving.records import log_files
from training.serving.records.log_files import HOST, Tail


def add(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_a_growing_file_is_read_on_and_an_unfinished_line_waits(tmp_path: Path) -> None:
    tail, path = Tail(), tmp_path / "requests-1.jsonl"
    assert list(tail.read(path)) == []
    add(path, '{"a":1}\n{"a":')
    assert list(tail.read(path)) == [{"a": 1}]
    add(path, '2}\n{"a":3}\n')
    assert list(tail.read(path)) == [{"a": 2}, {"a": 3}]
    assert list(tail.read(path)) == []
    assert tail.torn == 0


def test_a_rotated_file_is_not_read_again_but_to_its_end(tmp_path: Path) -> None:
    tail, path = Tail(), tmp_path / "requests-1.jsonl"
    add(path, '{"a":1}\n')
    list(tail.read(path))
    add(path, '{"a":2}\n')
    path.rename(tmp_path / "requests-1.jsonl.1")
    add(path, '{"a":3}\n')
    assert [list(tail.read(each)) for each in sorted(tmp_path.iterdir(), reverse=True)] == [[{"a": 2}], [{"a": 3}]]


def test_torn_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    tail, path = Tail(), tmp_path / "requests-1.jsonl"
    add(path, '{"a":1}\n{"a":{"b"\n\n[1]\n{"a":2}\n{"a"')
    assert list(tail.read(path)) == [{"a": 1}, {"a": 2}]
    assert (tail.torn, tail.unfinished) == (2, 1)


def test_a_new_file_with_the_inode_of_a_former_one_is_read_from_its_start(tmp_path: Path) -> None:
    tail, path = Tail(), tmp_path / "requests-1.jsonl"
    add(path, '{"a":1}\n')
    list(tail.read(path))
    inode = path.stat().st_ino
    path.write_text('{"a":2}\n{"a":3}\n')
    assert path.stat().st_ino == inode
    assert list(tail.read(path)) == [{"a": 2}, {"a": 3}]


@pytest.mark.parametrize(
    "odd",
    ['{"a":"1"}', '{"a":"1","time":null}', '{"a":["1"],"time":"2026-11-24"}', '{"a":"1","time":"yesterday"}', "[]"],
)
def test_a_record_of_another_form_is_torn(tmp_path: Path, odd: str) -> None:
    tail, path = Tail("a", "time"), tmp_path / "requests-1.jsonl"
    add(path, f'{odd}\n{{"time":"2026-11-24T12:00+00:00","a":"2","c":3}}\n')
    assert [record["a"] for record in tail.read(path)] == ["2"]
    assert tail.torn == 1


def test_a_time_without_a_zone_is_in_utc(tmp_path: Path) -> None:
    path = tmp_path / "requests-1.jsonl"
    add(path, '{"time":"2026-11-24T12:00:00"}\n{"time":"2026-11-24T14:00:00+02:00"}\n')
    assert [record["time"] for record in Tail("time").read(path)] == [datetime(2026, 11, 24, 12, tzinfo=UTC)] * 2


def test_a_file_that_is_there_and_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        list(Tail().read(tmp_path))


def test_files_are_bounded_though_other_workers_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four live workers, of which one rotates, and three files to keep: those, and one of each other worker."""
    monkeypatch.setattr(log_files.psutil, "pid_exists", lambda pid: True)
    others = [tmp_path / f"requests-{HOST}-{pid}.jsonl" for pid in (1, 2, 3)]
    own = [tmp_path / f"requests-{HOST}-4.jsonl.{number}" for number in range(1, 6)]
    for age, path in enumerate([*own, *others]):
        path.write_text("{}\n")
        os.utime(path, (1e9 - age, 1e9 - age))
    assert set(log_files.surplus(tmp_path, 3 - 1)) == set(own[2:])
