from pathlib import Path

import pytest

from data.errors import DataError
from data.layout.scan import scan
from tests.drawing import drawing, encoded, write_files


def test_a_link_to_a_folder_above_does_not_loop(tmp_path: Path) -> None:
    write_files(tmp_path, {"cat/1.jpg": b"x"})
    (tmp_path / "cat" / "up").symlink_to(tmp_path)
    assert scan(tmp_path).all_pictures() == [tmp_path / "cat/1.jpg"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_a_picture_is_known_by_its_first_bytes(tmp_path: Path, kind: str) -> None:
    write_files(tmp_path, {"0001": encoded(drawing(1), kind), "2.jpg_large": encoded(drawing(1), kind), "3": b"text"})
    found = scan(tmp_path)
    assert [path.name for path in found.pictures] == ["0001", "2.jpg_large"]
    assert [path.name for path in found.others] == ["3"]


def test_what_systems_leave_is_passed_over(tmp_path: Path) -> None:
    files = ["__MACOSX/cat/._1.jpg", "cat/@eaDir/1.jpg/thumb.jpg", ".git/1.jpg", "cat/1.jpg"]
    assert scan(write_files(tmp_path, dict.fromkeys(files, b"x"))).files() == [tmp_path / "cat/1.jpg"]


def test_pictures_that_cannot_be_read_are_known(tmp_path: Path) -> None:
    write_files(tmp_path, {"1.NEF": b"x"})
    (tmp_path / "2.jpg").symlink_to(tmp_path / "gone")
    assert {(path.name, why.split(":")[0]) for path, why in scan(tmp_path).unread} == {
        ("1.NEF", ".nef is not read here"),
        ("2.jpg", "a link that leads nowhere"),
    }


def test_patterns_fit_names_and_paths(tmp_path: Path) -> None:
    write_files(tmp_path, dict.fromkeys(["a/1.jpg", "a/2.png", "b/a/3.jpg", "c/4.jpg"], b"x"))

    def left(*ignore: str) -> list[str]:
        return [path.name for path in scan(tmp_path, ignore).all_pictures()]

    assert left("a") == ["4.jpg"]
    assert left("b/a", "*.png") == ["1.jpg", "4.jpg"]
    assert left("c/", "a/*") == ["3.jpg"]


def test_a_folder_that_goes_away(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        scan(tmp_path / "none")
