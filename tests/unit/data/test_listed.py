from pathlib import Path

import pytest

from data.errors import DataError
from data.tree import How, find_tree
from tests.drawing import write_files

PICTURES = ["a/1.jpg", "a/2.jpg", "b/3.jpg"]
SPLIT = "path,label,split\na/1.jpg,cat\na/2.jpg,dog\nb/3.jpg,cat\n"
ROWS = "path,label\na/1.jpg,cat\na/2.jpg,dog\nb/3.jpg,cat\n"


def names(folder: Path, text: str, labels: str | None = None, at: str = "labels.csv") -> set[str]:
    write_files(folder, dict.fromkeys(PICTURES, b"x") | {at: text.encode()})
    return set(find_tree(folder, How(labels=labels, project=folder.parent)).pictures)


EXPECTED = {"cat/a%2F1.jpg", "dog/a%2F2.jpg", "cat/b%2F3.jpg"}


@pytest.mark.parametrize(
    "text",
    [
        ROWS,
        ROWS.replace(",", ";").replace("path", "\ufeffPath"),
        ROWS.replace("label", "class").replace(",", "\t"),
        ROWS.replace("\n", ",\r\n").replace("label,", "label,split"),
        ROWS.replace("a/", '".\\a\\').replace(".jpg", '.jpg"').replace("b/3", '"b/3') + "\n,\n",
    ],
)
def test_reads_what_spreadsheets_write(tmp_path: Path, text: str) -> None:
    assert names(tmp_path, text) == EXPECTED


def test_a_split_may_be_given(tmp_path: Path) -> None:
    text = "path,label,split\na/1.jpg,cat,Train\na/2.jpg,dog,training\nb/3.jpg,cat,val\n"
    with pytest.raises(DataError, match="class 'dog' has pictures in train and none in validation"):
        names(tmp_path, text)
    write_files(tmp_path, {"b/4.jpg": b"x"})
    found = names(tmp_path, text + "b/4.jpg,dog,val\n")
    assert found == {
        "train/cat/a%2F1.jpg",
        "train/dog/a%2F2.jpg",
        "validation/cat/b%2F3.jpg",
        "validation/dog/b%2F4.jpg",
    }


def test_folders_that_all_share_are_no_part_of_a_name(tmp_path: Path) -> None:
    files = {
        "x/images/1.jpg": b"x",
        "x/images/2.jpg": b"x",
        "x/labels.csv": b"path,label\nimages/1.jpg,a/b\nimages/2.jpg,c",
    }
    assert set(find_tree(write_files(tmp_path, files)).pictures) == {"a%2Fb/1.jpg", "c/2.jpg"}


def test_the_file_may_have_another_name_and_place(tmp_path: Path) -> None:
    assert names(tmp_path / "source", ROWS, "meta/list.csv", at="../meta/list.csv") == EXPECTED
    assert names(tmp_path / "other", ROWS, "lists/list.csv", at="lists/list.csv") == EXPECTED
    within = ROWS.replace("a/", "").replace("b/3.jpg,cat\n", "")
    with pytest.raises(DataError, match=r"\(b/3.jpg\): they are not in list.csv"):
        names(tmp_path / "within", within, "a/list.csv", at="a/list.csv")
    with pytest.raises(DataError, match=r"data\.labels no\.csv is neither in"):
        names(tmp_path / "source", ROWS, "no.csv")


def test_a_file_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    assert names(tmp_path, "id,breed\n1,cat\n") == {"a/1.jpg", "a/2.jpg", "b/3.jpg"}
    with pytest.raises(DataError, match="has the columns id, breed: it needs the columns path, label"):
        names(tmp_path, "id,breed\n1,cat\n", "labels.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            ROWS.replace("b/3.jpg,cat\n", ""),
            r"\(b/3.jpg\): they are not in labels.csv: add a line",
        ),
        (ROWS + "b/4.jpg,cat\n", "line 5: 'b/4.jpg' is no picture in"),
        (ROWS + "../x.jpg,cat\n", "line 5: '../x.jpg' is no picture in"),
        (ROWS + "a/1.jpg,dog\n", "lines 2 and 5 give 'a/1.jpg' two labels"),
        (ROWS.replace("3.jpg,cat", "3.jpg,"), "line 4 has no label"),
        (
            SPLIT.replace("1.jpg,cat", "1.jpg,cat,train"),
            "line 3 has no split, as others do",
        ),
        (SPLIT.replace(",cat", ",cat,holdout"), "line 2: 'holdout' is no split"),
        (ROWS.replace("cat", "Test"), "a class called 'Test' cannot be told from the split"),
        (ROWS.replace("cat", "dog"), r"fewer than two classes in .* \(found: dog\)"),
        (ROWS + '"a', "is not a CSV file in UTF-8"),
    ],
)
def test_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        names(tmp_path, text)
