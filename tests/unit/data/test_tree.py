import unicodedata
from pathlib import Path

import pytest

from data.errors import DataError
from data.tree import How, class_of, find_tree, folder_of, split_of
from tests.drawing import write_files

CLASSES = ["cat/1.jpg", "dog/1.JPG"]


def test_finds_pictures_and_names_the_other_files(tmp_path: Path) -> None:
    strays = ["readme[1].txt", "cat/Thumbs.db", "cat/._1.jpg"]
    tree = find_tree(write_files(tmp_path, dict.fromkeys(CLASSES + strays, b"x")))
    assert set(tree.pictures) == set(CLASSES)
    assert {path.relative_to(tmp_path).as_posix() for path in tree.ignored} == set(strays)
    assert not tree.has_test_folder()


def test_a_tree_that_was_made_of_another_is_read_alike(tmp_path: Path) -> None:
    files = [f"x/{split}/{name}" for split in ("Training", "VAL", "test_set") for name in ("a/b/1.jpg", "c/1.jpg")]
    first = find_tree(write_files(tmp_path / "first", dict.fromkeys(files, b"x"))).pictures
    assert set(first) == {
        f"{split}/{name}" for split in ("train", "validation", "test") for name in ("a/b%2F1.jpg", "c/1.jpg")
    }
    again = find_tree(write_files(tmp_path / "again", dict.fromkeys(first, b"x")))
    assert set(again.pictures) == set(first)
    assert again.has_test_folder()


def test_what_a_name_says() -> None:
    assert [split_of(name) for name in ("cat/1.jpg", "test/cat/1.jpg")] == ["", "test"]
    assert class_of("train/cats/1.jpg", {"cats": "cat"}) == "cat"
    assert class_of(f"{folder_of('a/b')}/1.jpg", {}) == "a/b"


def test_class_names_are_in_form_c(tmp_path: Path) -> None:
    apart = unicodedata.normalize("NFD", "Käfer")
    tree = find_tree(write_files(tmp_path, dict.fromkeys([f"{apart}/ä.jpg", "Hund/1.jpg"], b"x")))
    assert set(tree.pictures) == {"Käfer/ä.jpg", "Hund/1.jpg"}
    assert class_of(f"{apart}/1.jpg", {}) == "Käfer"
    assert folder_of(apart) == "Käfer"


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        ("Cat", "cat", r"'Cat' \(train/Cat/1.jpg\) and 'cat' \(test/cat/1.jpg\)"),
        (unicodedata.normalize("NFD", "Käfer"), "Käfer", r"\(Unicode form D, .*\) and 'Käfer' \(Unicode form C, test"),
        ("sea lion", "Sea  lion", "'Sea  lion' .* and 'sea lion'"),
    ],
)
def test_two_spellings_of_a_class_are_an_error(tmp_path: Path, first: str, second: str, named: str) -> None:
    files = [f"train/{first}/1.jpg", "train/x/1.jpg", f"test/{second}/1.jpg", "test/x/1.jpg"]
    write_files(tmp_path, dict.fromkeys(files, b"x"))
    with pytest.raises(DataError, match=rf"one class is spelled in 2 ways.*{named}.*merge them by data\.rename"):
        find_tree(tmp_path)
    merged = find_tree(tmp_path, How(rename={unicodedata.normalize("NFC", name): "one" for name in (first, second)}))
    assert len(merged.pictures) == 4


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder: expected CLASS"):
        find_tree(tmp_path / "none")
