import io
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from data.errors import DataError
from data.sources import archive as module
from data.sources.archive import Bounds, unpack
from tests.drawing import read_files, zipped

FILES = {"cat/1.jpg": b"cat", "dog/1.jpg": b"dog" * 1000, "readme.txt": b"read me"}


def tarred(path: Path, members: list[tarfile.TarInfo], content: bytes = b"") -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as file:
        for member in members:
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def archived(path: Path) -> Path:
    """FILES in an archive of the kind that its name says."""
    if path.suffix == ".zip":
        return zipped(path, FILES)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as file:
        for member, content in FILES.items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_unpacks(tmp_path: Path, name: str) -> None:
    unpack(archived(tmp_path / name), tmp_path / "out")
    assert read_files(tmp_path / "out") == FILES


OUTSIDE = ["../evil.jpg", "cat/../../evil.jpg", "/evil.jpg", "..\\evil.jpg", "C:\\evil.jpg", "C:/evil.jpg"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_refuses_members_that_would_land_outside(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / "in").mkdir()
    archive = tmp_path / "in" / f"a.{kind}"
    if kind == "zip":
        zipped(archive, {name: b"evil"})
    else:
        tarred(archive, [tarfile.TarInfo(name)], b"evil")
    with pytest.raises(DataError, match="would be written outside the folder"):
        unpack(archive, tmp_path / "in" / "out" / "deep")
    assert set(read_files(tmp_path)) == {f"in/a.{kind}"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_refuses_links_and_devices_in_a_tar(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("cat/1.jpg")
    member.type, member.linkname = kind, "../../secret"
    with pytest.raises(DataError, match="is a link or a device"):
        unpack(tarred(tmp_path / "a.tar", [member]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_refuses_links_in_a_zip(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("cat/1.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="is a link or a device"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_stops_at_a_bomb(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("cat/1.bmp", bytes(10_000_000))
    with pytest.raises(DataError, match="archive bomb"):
        unpack(tmp_path / "a.zip", tmp_path / "out", bounds=Bounds(bytes=1_000_000))
    assert (tmp_path / "out/cat/1.bmp").stat().st_size <= 2_000_000


def test_stops_at_too_many_members(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more than 2 files"):
        unpack(zipped(tmp_path / "a.zip", FILES), tmp_path / "out", bounds=Bounds(members=2))


def test_refuses_a_member_that_occurs_twice(tmp_path: Path) -> None:
    archive = tarred(tmp_path / "a.tar", [tarfile.TarInfo("cat/1.jpg"), tarfile.TarInfo("cat/1.jpg")], b"x")
    with pytest.raises(DataError, match="occurs twice"):
        unpack(archive, tmp_path / "out")


def test_names_a_damaged_archive(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", FILES)
    data = bytearray(archive.read_bytes())
    data[40] ^= 0xFF  # in the first member: its checksum no longer fits
    archive.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.zip is damaged .*get it again"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize(("name", "keep"), [("a.tar", 700), ("a.tar", 1024), ("a.tar", 1300), ("a.tar.gz", 100)])
def test_names_a_truncated_tar(tmp_path: Path, name: str, keep: int) -> None:
    members = [tarfile.TarInfo(f"cat/{number}.jpg") for number in range(3)]  # each 512 bytes of header, 512 of content
    archive = tarred(tmp_path / name, members, bytes(range(256)))
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"is (damaged|neither)"):
        unpack(archive, tmp_path / "out")


def test_names_what_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match="neither a zip nor a tar"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("first", [True, False])
def test_refuses_a_header_that_fills_the_memory(tmp_path: Path, kind: bytes, first: bool) -> None:
    """By the size it gives for itself: nothing of it is read."""
    header = tarfile.TarInfo("header")
    header.type, header.size = kind, 3 << 30
    archive = tmp_path / "a.tar"
    before = b"" if first else tarfile.TarInfo("cat/1.jpg").tobuf()
    archive.write_bytes(before + header.tobuf(tarfile.GNU_FORMAT) + bytes(10 * 512))
    with pytest.raises(DataError, match=r"is refused: its member .* has a header of 3221225472 bytes"):
        unpack(archive, tmp_path / "out")


def test_refuses_headers_for_all_members_that_add_up(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        for number in range(40):
            header = tarfile.TarInfo.create_pax_global_header({f"key{number}": "x" * 60_000})
            file.fileobj.write(header)
        file.addfile(tarfile.TarInfo("cat/1.jpg"))
    with pytest.raises(DataError, match="has a header of"):
        unpack(archive, tmp_path / "out")


def test_takes_long_names_in_both_kinds_of_header(tmp_path: Path) -> None:
    for number, form in enumerate((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)):
        archive, name = tmp_path / f"{number}.tar", "cat/" + "ä" * 120
        with tarfile.open(archive, "w", format=form) as file:
            file.addfile(tarfile.TarInfo(name))
        unpack(archive, tmp_path / f"out{number}")
        assert read_files(tmp_path / f"out{number}") == {name: b""}


class Changing:
    """In place of `_write`: meanwhile somebody writes to the archive, or puts another in its place."""

    def __init__(self, archive: Path, replaces: bool) -> None:
        self.archive, self.replaces, self.write = archive, replaces, module._write

    def __call__(self, *arguments: Any) -> int:
        if self.replaces:
            other = self.archive.with_name("other")
            other.write_bytes(b"another file")
            other.replace(self.archive)
        else:
            with self.archive.open("ab") as file:
                file.write(b"more")
        return self.write(*arguments)


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_an_archive_that_is_replaced_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    archive = archived(tmp_path / name)
    monkeypatch.setattr(module, "_write", Changing(archive, replaces=True))
    unpack(archive, tmp_path / "out")
    assert read_files(tmp_path / "out") == FILES


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_an_archive_that_is_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    archive = archived(tmp_path / name)
    monkeypatch.setattr(module, "_write", Changing(archive, replaces=False))
    with pytest.raises(DataError, match=r"^\S+ was written to while it was read: run again when it is there in full$"):
        unpack(archive, tmp_path / "out")


def test_what_is_refused_is_not_called_damaged(tmp_path: Path) -> None:
    locked = bytearray(zipped(tmp_path / "a.zip", {"cat/1.jpg": b"x"}).read_bytes())
    locked[6] |= 1  # in the member's own header, and in the list of members: the flag of a password
    locked[locked.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(locked)
    with pytest.raises(DataError, match=r"a\.zip needs a password: unpack it, and set data\.source to folder$"):
        unpack(tmp_path / "a.zip", tmp_path / "a")
    with pytest.raises(DataError, match=r"^\S+ is refused: its member '\.\./x' would be written outside"):
        unpack(zipped(tmp_path / "b.zip", {"../x": b"x"}), tmp_path / "b")
    with pytest.raises(DataError, match=r"^\S+ holds more than 2 files"):
        unpack(zipped(tmp_path / "c.zip", FILES), tmp_path / "c", bounds=Bounds(members=2))
