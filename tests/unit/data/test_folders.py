"""Every layout that is understood, and every one that is refused, with what the error names."""

from pathlib import Path

import pytest

from data.errors import DataError
from data.tree import How, find_tree
from tests.drawing import write_files


def names(folder: Path, files: list[str], *ignore: str) -> set[str]:
    return set(find_tree(write_files(folder, {name: name.encode() for name in files}), How(ignore=ignore)).pictures)


CLASSES = ["cat/1.jpg", "dog/1.JPG"]


def each(*parts: str) -> list[str]:
    return [f"{part}/{name}" for part in parts for name in CLASSES]


@pytest.mark.parametrize("wrapper", ["", "PetImages/", "a/b/c/"])
def test_finds_class_folders_at_any_depth(tmp_path: Path, wrapper: str) -> None:
    assert names(tmp_path, [wrapper + name for name in CLASSES]) == set(CLASSES)


@pytest.mark.parametrize("wrapper", ["", "dogs-vs-cats/", "a/b/"])
@pytest.mark.parametrize(
    ("parts", "splits"),
    [
        (["Train", "test"], ["train", "test"]),
        (["train", "val"], ["train", "validation"]),
        (["train", "valid", "test"], ["train", "validation", "test"]),
        (["Training", "Testing"], ["train", "test"]),
        (["training_set/training_set", "test_set/test_set"], ["train", "test"]),
        (["train/images", "dev/images"], ["train", "validation"]),
        (["TRAIN_SET", "eval"], ["train", "test"]),
        (["train"], ["train"]),
    ],
)
def test_finds_splits(tmp_path: Path, wrapper: str, parts: list[str], splits: list[str]) -> None:
    assert names(tmp_path, [wrapper + name for name in each(*parts)]) == set(each(*splits))


def test_splits_may_lie_below_the_classes(tmp_path: Path) -> None:
    files = [f"x/{label}/{part}/1.jpg" for label in ("rose", "tulip") for part in ("Training", "Val")]
    assert names(tmp_path, files) == {
        f"{part}/{label}/1.jpg" for label in ("rose", "tulip") for part in ("train", "validation")
    }


def test_classes_may_have_folders(tmp_path: Path) -> None:
    files = ["rose/1.jpg", "tulip/1.jpg", "daisy/2021/1.jpg", "daisy/2022/1.jpg", "daisy/2022/may/1.jpg"]
    expected = {"rose/1.jpg", "tulip/1.jpg", "daisy/2021%2F1.jpg", "daisy/2022%2F1.jpg", "daisy/2022%2Fmay%2F1.jpg"}
    assert names(tmp_path / "a", files) == expected
    both = [f"{part}/{name}" for part in ("train", "test") for name in files]
    assert names(tmp_path / "b", both) == {f"{part}/{name}" for part in ("train", "test") for name in expected}


def test_a_class_with_folders_is_no_wrapper_where_another_split_has_it_beside_others(tmp_path: Path) -> None:
    files = [*each("train"), "test/cat/a/1.jpg", "test/cat/b/1.jpg"]
    with pytest.raises(DataError, match="class 'dog' has pictures in train and none in test"):
        names(tmp_path, files)


@pytest.mark.parametrize("wrapper", ["", "pets/"])
def test_file_names_may_begin_with_the_class(tmp_path: Path, wrapper: str) -> None:
    flat = [f"{label}.{number}.jpg" for label in ("cat", "dog") for number in range(2)]
    assert names(tmp_path / "a", [wrapper + name for name in flat]) == {f"{name[:3]}/{name}" for name in flat}
    both = [f"{wrapper}{part}/{name}" for part in ("train", "test") for name in flat]
    assert names(tmp_path / "b", both) == {f"{part}/{name[:3]}/{name}" for part in ("train", "test") for name in flat}


@pytest.mark.parametrize(
    ("files", "copy"),
    [
        (each("train", "test"), "dogs_vs_cats"),  # as on Kaggle
        ([f"flowers/{name}" for name in CLASSES], "flowers/flowers"),
    ],
)
def test_a_second_copy_is_left_out(tmp_path: Path, files: list[str], copy: str) -> None:
    top = copy.rpartition("/")[0]
    write_files(tmp_path, {f"{copy}/{name.removeprefix(top + '/')}": name.encode() for name in files})
    found = names(tmp_path, files)
    assert found == {name.removeprefix("flowers/") for name in files}
    assert find_tree(tmp_path).notes == (f"{copy} is left out: a second copy of {len(files)} pictures beside it",)
    write_files(tmp_path, {f"{copy}/{files[0].removeprefix(top + '/')}": b"another"})
    with pytest.raises(DataError, match=f"^{len(files)} pictures of .* would be lost .*{copy.rpartition('/')[2]}"):
        find_tree(tmp_path)


FLAT = ["train/cat.1.jpg", "train/cat.2.jpg", "train/dog.1.jpg", "train/dog.2.jpg"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["cat/1.jpg"], "fewer than two class folders"),
        (["cat/1.jpg", "dog/notes.txt"], "class folder dog has no pictures: add some, remove the folder"),
        ([*each("train"), "train/cow/notes.txt"], "class folder train/cow has no pictures"),
        (["1.jpg", "2.jpg"], "lost .*1.jpg, 2.jpg.*: there are no class folders, and file names do not tell"),
        (["notes.txt"], "there are no pictures in"),
        (["cat/a\nb.jpg", "dog/1.jpg"], "rename the file"),
        ([*CLASSES, "a.jpg"], r"1 picture .* would be lost \(a.jpg\): they lie beside the folders of the classes"),
        (["x/a.jpg", *each("x/y")], r"lost \(x/a.jpg\): they lie above the classes"),
        ([*each("train"), "train/a.jpg"], r"lost \(train/a.jpg\): they lie in train, beside the folders"),
        ([*each("train"), "a.jpg"], r"lost \(a.jpg\): they lie beside train, in no split"),
        ([*each("train"), *(f"x/{n}.jpg" for n in range(9))], r"9 .*\(x/: 9 such as 0.jpg\): x lies beside train"),
        ([*CLASSES, *each("test")], r"1 picture .* \(dog/1.JPG\): dog lies beside test and is no split"),
        ([*FLAT, "test1/1.jpg"], r"\(test1/1.jpg\): there are no class folders, and file names do not tell"),
        ([*CLASSES, "train/1.jpg"], r"train/1.jpg\): there are no class folders"),
        ([*each("train", "test"), "test/val/cat/1.jpg"], "a folder for validation lies in one for test"),
        ([*each("train"), "train/cat/test/1.jpg"], r"\(train/cat/test/1.jpg\): a folder of another split lies in"),
        (["a/train/1.jpg", "a/2.jpg", "b/train/1.jpg"], r"\(a/2.jpg\): they are in no split, and others are in train"),
        (["a/train/cat/1.jpg", "b/train/cat/1.jpg"], "which are the classes"),
        (["v1/cat/1.jpg", "v1/dog/1.jpg", *CLASSES], "v1 holds folders called like the classes beside it"),
        (["cats_train/1.jpg", "cats_test/1.jpg"], "cats_test and cats_train in .* speak of splits"),
        ([*each("train"), "test/cat/1.jpg"], "class 'dog' has pictures in train and none in test"),
        ([*each("train", "val"), "val/cow/1.jpg"], "class 'cow' has pictures in validation and none in train"),
        (each("test", "val"), "pictures to test with and none to train on"),
        (
            [*each("train"), "training/cat/1.jpg"],
            "training/cat/1.jpg and train/cat/1.jpg would be one file, train/cat/1",
        ),
        ([*CLASSES, "cat/2.jxl"], r"\(cat/2.jxl\): .jxl is not read here: convert it"),
        ([*CLASSES, "cat/" + "ä" * 100 + "/" + "ä" * 60 + ".jpg"], "more than 255 bytes: shorten it"),
    ],
)
def test_says_what_is_wrong(tmp_path: Path, files: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        names(tmp_path, files)


def test_a_class_may_be_called_like_a_split_if_data_rename_says_so(tmp_path: Path) -> None:
    write_files(tmp_path, dict.fromkeys(["Valid/1.jpg", "invalid/1.jpg"], b"x"))
    with pytest.raises(DataError, match=r"if Valid is a class, say so by data\.rename \({Valid: another name}\)"):
        find_tree(tmp_path)
    how = How({"Valid": "sound"})
    assert set(find_tree(tmp_path, how).pictures) == {"Valid/1.jpg", "invalid/1.jpg"}


def test_what_is_ignored_is_lost_with_leave(tmp_path: Path) -> None:
    files = [*each("train"), "test1/1.jpg", "train/cat/raw/2.nef", "train/masks/cat/1.jpg"]
    with pytest.raises(DataError, match=r"leave it out by data\.ignore"):
        names(tmp_path, files)
    assert names(tmp_path, files, "test1", "*.nef", "train/masks") == set(each("train"))


def test_names_that_meet_in_form_c_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"would be one file, cat/ä\.jpg: rename one of them"):
        names(tmp_path, [*CLASSES, "cat/ä.jpg", "cat/a\u0308.jpg"])
