import shutil
from pathlib import Path

import pytest

from data.errors import DataError
from data.files import copy_whole, fingerprint, make_folders, workspace
from tests.drawing import read_files, write_files
from training.common.files import discard, fresh, swap, write_text


def test_swap_puts_the_new_in_the_place_of_the_former(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        swap(write_files(tmp_path / "work/staged", {"a/b": content}), tmp_path / "final")
        assert read_files(tmp_path) == {"final/a/b": content}


def test_swap_replaces_a_link_and_leaves_what_it_points_to(tmp_path: Path) -> None:
    write_files(tmp_path / "elsewhere", {"a": b"theirs"})
    (tmp_path / "final").symlink_to(tmp_path / "elsewhere")
    swap(write_files(tmp_path / "work/staged", {"a": b"ours"}), tmp_path / "final")
    assert read_files(tmp_path / "final") == {"a": b"ours"}
    assert read_files(tmp_path / "elsewhere") == {"a": b"theirs"}


def test_two_names_for_one_folder_are_refused(tmp_path: Path) -> None:
    make_folders(tmp_path / "new", ["train/cat", "train/Dog"])
    with pytest.raises(DataError, match="takes 'train/cat' for the name of another class too"):
        make_folders(tmp_path / "new", ["train/cat"])  # where no case counts, so does train/Cat


def test_swap_clears_what_a_killed_run_left(tmp_path: Path) -> None:
    write_files(tmp_path, {"work/staged.old/x": b"left over", "final/a": b"former"})
    swap(write_files(tmp_path / "work/staged", {"a": b"new"}), tmp_path / "final")
    assert read_files(tmp_path) == {"final/a": b"new"}


def test_discard_and_fresh(tmp_path: Path) -> None:
    write_files(tmp_path, {"folder/a": b"x", "file": b"x"})
    assert list(fresh(tmp_path / "folder").iterdir()) == []
    discard(tmp_path / "file")
    discard(tmp_path / "never was")
    assert read_files(tmp_path) == {}


def test_write_text_leaves_no_other_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a.csv", "ä\n")
    assert read_files(tmp_path) == {"a.csv": b"\xc3\xa4\n"}


def test_a_workspace_is_for_one_at_a_time(tmp_path: Path) -> None:
    with workspace(tmp_path / "w"), pytest.raises(DataError, match="another process"), workspace(tmp_path / "w"):
        pass
    with workspace(tmp_path / "w") as again:
        assert again == tmp_path / "w"


def test_fingerprint_tells_any_change(tmp_path: Path) -> None:
    write_files(tmp_path, {"a": b"x", "b": b"y"})
    files = [(name, tmp_path / name) for name in "ab"]
    before = fingerprint(files)
    assert fingerprint(reversed(files)) == before
    assert fingerprint(files[:1]) != before
    (tmp_path / "a").write_bytes(b"longer")
    assert fingerprint(files) != before


def test_a_file_that_is_written_to_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"x" * 100)
    copy_whole(source, target)
    assert target.read_bytes() == b"x" * 100

    def meanwhile(*_: object) -> None:
        source.write_bytes(b"y" * 50)

    monkeypatch.setattr(shutil, "copyfileobj", meanwhile)
    with pytest.raises(DataError, match="was written to while it was read: run again"):
        copy_whole(source, target)
    source.unlink()
    for read in (lambda: copy_whole(source, target), lambda: fingerprint([("a", source)])):
        with pytest.raises(DataError, match="went away while its folder was read"):
            read()
