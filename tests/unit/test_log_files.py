"""Lines are read whole, each once, whatever happens to the file meanwhile."""

from __future__ import annotations

from pathlib import Path

from training.serving.log_files import Tail


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
