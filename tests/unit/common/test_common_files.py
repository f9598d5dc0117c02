from __future__ import annotations

import os
from pathlib import Path

import pytest

from training.common.files import replacing, write_text


def test_a_block_that_fails_leaves_the_former_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "folder/file"
    write_text(path, "former")

    def fail_half_way() -> None:
        with replacing(path) as part:
            part.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "former"
    assert [found.name for found in path.parent.iterdir()] == ["file"]


def test_a_reader_sees_the_former_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "former")
    with replacing(path) as part:
        part.write_text("new")
        assert path.read_text() == "former"
    assert path.read_text() == "new"


def test_the_same_text_again_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "text")
    os.utime(path, (1, 1))
    write_text(path, "text")
    assert path.stat().st_mtime == 1
    write_text(path, "other")
    assert path.stat().st_mtime > 1
