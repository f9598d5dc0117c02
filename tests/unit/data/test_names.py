"""Names in a zip, as programs write them that do not mark them as UTF-8."""

import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from data.errors import DataError
from data.sources.archive import unpack
from tests.drawing import read_files


def packed(path: Path, *names: bytes, extra: bytes = b"") -> Path:
    """A zip of files called so, without the flag that says UTF-8."""
    with zipfile.ZipFile(path, "w") as file:
        for number, name in enumerate(names):
            info = zipfile.ZipInfo(f"{number:0{len(name)}}")  # as long as the name that takes its place below
            info.extra = extra
            file.writestr(info, b"content")
    data = path.read_bytes()
    for number, name in enumerate(names):
        data = data.replace(f"{number:0{len(name)}}".encode(), name)
    path.write_bytes(data)
    return path


def unpacked(archive: Path, encoding: str | None = None) -> set[str]:
    unpack(archive, archive.parent / "out", encoding)
    return set(read_files(archive.parent / "out"))


@pytest.mark.parametrize(
    ("names", "written", "encoding", "read", "said"),
    [
        (["猫", "狗"], "utf-8", None, {"猫", "狗"}, "read as utf-8 ('猫', '狗')"),
        # 猫 in GBK alone would pass for UTF-8: all names decide together
        (["猫", "狗"], "gbk", None, {"├¿", "╣╖"}, "read as cp437 ('├¿', '╣╖'). If they are not as they should be, set"),
        (["猫", "狗"], "gbk", "gbk", {"猫", "狗"}, ""),
        (["表", "猫"], "shift_jis", "shift_jis", {"表", "猫"}, ""),  # a backslash is among the bytes of the first
    ],
)
def test_names_that_are_not_marked(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    names: list[str],
    written: str,
    encoding: str | None,
    read: set[str],
    said: str,
) -> None:
    assert unpacked(packed(tmp_path / "a.zip", *(name.encode(written) for name in names)), encoding) == read
    printed = capsys.readouterr().err
    assert said in printed
    assert bool(printed) == bool(said)


def test_plain_names_are_no_question(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("猫/1.jpg", b"x")
        file.writestr("cat/1.jpg", b"x")
    assert unpacked(tmp_path / "a.zip", "gbk") == {"猫/1.jpg", "cat/1.jpg"}
    assert capsys.readouterr().err == ""


def test_names_that_were_marked_by_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name in ("猫/1.jpg", "狗/1.jpg"):
            file.writestr(name.encode("gbk").decode("cp437"), b"x")
    assert unpacked(tmp_path / "a.zip", "gbk") == {"猫/1.jpg", "狗/1.jpg"}
    assert unpacked(tmp_path / "a.zip") >= {"├¿/1.jpg"}
    assert "read as cp437" in capsys.readouterr().err


def test_a_field_may_have_the_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, true = "Käfer/1.jpg".encode("cp850"), "Käfer/1.jpg".encode()
    field = b"\1" + struct.pack("<L", zlib.crc32(name)) + true
    archive = packed(tmp_path / "a.zip", name, extra=struct.pack("<HH", 0x7075, len(field)) + field)
    assert unpacked(archive) == {"Käfer/1.jpg"}
    assert capsys.readouterr().err == ""


def test_another_encoding_than_the_given_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"its member b.* is not written in utf-8: set data.archive_encoding"):
        unpacked(packed(tmp_path / "a.zip", b"K\x84fer/1.jpg"), "utf-8")
