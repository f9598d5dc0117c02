from pathlib import Path

import pytest

from data.errors import DataError
from data.tree import find_tree
from tests.drawing import write_files


def names(folder: Path, files: list[str]) -> set[str]:
    return set(find_tree(write_files(folder, dict.fromkeys(files, b"x"))).pictures)


CLASSES = ["cat/1.jpg", "dog/1.JPG"]


@pytest.mark.parametrize("wrapper", ["", "PetImages/", "a/b/c/"])
def test_finds_class_folders_at_any_depth(tmp_path: Path, wrapper: str) -> None:
    assert names(tmp_path, [wrapper + name for name in CLASSES]) == set(CLASSES)


@pytest.mark.parametrize("wrapper", ["", "dogs-vs-cats/"])
def test_finds_train_and_test(tmp_path: Path, wrapper: str) -> None:
    files = [f"{wrapper}{part}/{name}" for part in ("Train", "test") for name in CLASSES]
    assert names(tmp_path, files) == {f"{part}/{name}" for part in ("train", "test") for name in CLASSES}


def test_train_and_test_are_found_beside_a_second_copy(tmp_path: Path) -> None:
    files = [f"{part}/{name}" for part in ("train", "test") for name in CLASSES]
    write_files(tmp_path, {f"dogs_vs_cats/{name}": b"x" for name in files})
    assert names(tmp_path, files) == set(files)
    assert len(find_tree(tmp_path).ignored) == 4


def test_lists_what_is_not_a_picture_of_a_class(tmp_path: Path) -> None:
    strays = ["readme[1].txt", "cat/Thumbs.db", "cat/._1.jpg", "cat/deeper/2.jpg"]
    assert names(tmp_path, CLASSES + strays) == set(CLASSES)
    ignored = {path.relative_to(tmp_path).as_posix() for path in find_tree(tmp_path).ignored}
    assert ignored == set(strays)


def test_a_link_to_a_folder_above_does_not_loop(tmp_path: Path) -> None:
    write_files(tmp_path, dict.fromkeys(CLASSES, b"x"))
    (tmp_path / "cat" / "up").symlink_to(tmp_path)
    assert set(find_tree(tmp_path).pictures) == set(CLASSES)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["cat/1.jpg"], "fewer than two class folders"),
        (["cat/1.jpg", "dog/notes.txt"], "dog has no pictures"),
        (["1.jpg", "2.jpg"], "no class folders"),
        (["train/cat.1.jpg", "test1/1.jpg"], "no class folders"),
        (["notes.txt"], "no class folders"),
        (["train/cat/1.jpg", "train/dog/1.jpg", "test/cat/1.jpg"], "fewer than two class folders in .*test"),
        (["cat/a\nb.jpg", "dog/1.jpg"], "rename the file"),
    ],
)
def test_says_what_is_wrong(tmp_path: Path, files: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        names(tmp_path, files)


def test_an_empty_class_folder_is_an_error(tmp_path: Path) -> None:
    write_files(tmp_path, dict.fromkeys([*CLASSES, "cow/x"], b"x"))
    (tmp_path / "cow" / "x").unlink()
    with pytest.raises(DataError, match="cow has no pictures: add some, or remove the folder"):
        find_tree(tmp_path)
