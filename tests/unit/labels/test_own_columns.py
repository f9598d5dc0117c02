from pathlib import Path

import pytest

from training.labels import own_columns
from training.labels.own_columns import ColumnsError

SOURCES = ("cat/1.jpg", "cat/2.jpg")


def read(folder: Path, text: str) -> own_columns.Columns:
    (folder / "columns.csv").write_text(text)
    return own_columns.read(folder / "columns.csv", ("path", "source"), SOURCES)


def test_values_by_source(tmp_path: Path) -> None:
    found = read(tmp_path, "source,camera,site\ncat/2.jpg,A,north\n")
    assert found.names == ("camera", "site")
    assert (found.of("cat/2.jpg"), found.of("cat/1.jpg")) == (("A", "north"), ("", ""))
    assert own_columns.read(tmp_path / "none.csv", (), ()).of("cat/1.jpg") == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("camera\n", "the first column must be source"),
        ("source,path\n", "a column cannot be called 'path'"),
        ("source,a,a\n", "a column cannot be called 'a'"),
        ("source,a\ncat/1.jpg\n", "line 2: expected 2 cells, found 1"),
        ("source,a\ncat/1.jpg,A\ncat/1.jpg,B\n", r"line 3: cat/1\.jpg is named twice"),
        ("source,a\ncat/3.jpg,A\n", r"line 2: data/raw has no picture cat/3\.jpg"),
    ],
)
def test_a_bad_table_is_one_error(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ColumnsError, match=said):
        read(tmp_path, text)
