import hashlib
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.errors import DataError
from data.fetch import RAW, fetch, main
from data.files import workspace
from data.sample import build_sample
from data.sources.places import DOWNLOADS, SAMPLE
from tests.drawing import class_files, data_section, read_files, write_files, zipped
from tests.killing import command, project, run, run_killed_after


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_files(tmp_path / "source", class_files(3))


def written(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every file: equal only for files that were not written again."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_copies_a_folder(tmp_path: Path, source: Path) -> None:
    write_files(source, {"notes.txt": b"x"})
    done = fetch(data_section(path=str(source)), tmp_path)
    assert read_files(tmp_path / RAW) == class_files(3)
    assert (done.pictures, done.classes, done.written) == (6, {"cat": 3, "dog": 3}, 6)
    assert done.ignored == ["notes.txt"]


def test_writes_nothing_when_nothing_changed(tmp_path: Path, source: Path) -> None:
    fetch(data_section(path=str(source)), tmp_path)
    before = written(tmp_path / RAW)
    done = fetch(data_section(path=str(source)), tmp_path)
    assert (done.pictures, done.written, done.removed) == (6, 0, 0)
    assert written(tmp_path / RAW) == before


def test_writes_what_changed_and_nothing_else(tmp_path: Path, source: Path) -> None:
    fetch(data_section(path=str(source)), tmp_path)
    before = written(tmp_path / RAW)
    (source / "cat/0.png").unlink()
    write_files(source, {"cat/new.png": b"new", "dog/0.png": b"changed"})
    done = fetch(data_section(path=str(source)), tmp_path)
    assert (done.written, done.removed) == (2, 1)
    assert read_files(tmp_path / RAW) == read_files(source)
    after = written(tmp_path / RAW)
    same = {"cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"}
    assert {name: after[name] for name in same} == {name: before[name] for name in same}


def test_mends_what_was_changed_behind_its_back(tmp_path: Path, source: Path) -> None:
    fetch(data_section(path=str(source)), tmp_path)
    (tmp_path / RAW / "cat/0.png").unlink()
    write_files(tmp_path / RAW, {"dog/0.png": b"damaged", "cow/1.png": b"stray"})
    fetch(data_section(path=str(source)), tmp_path)
    assert read_files(tmp_path / RAW) == read_files(source)


def test_another_source_replaces_everything(tmp_path: Path, source: Path) -> None:
    fetch(data_section(path=str(source)), tmp_path)
    files = {f"{part}/{name}": content for part in ("train", "test") for name, content in class_files(2, 50).items()}
    archive = zipped(tmp_path / "other.zip", files)
    fetch(data_section(source="archive", path=str(archive)), tmp_path)
    assert read_files(tmp_path / RAW) == files


@pytest.mark.slow
def test_sample_is_what_its_card_says(tmp_path: Path) -> None:
    done = fetch(data_section(source="sample"), tmp_path)
    assert done.classes == {"cat": 1000, "dog": 1000}
    assert SAMPLE.stat().st_size <= 5_000_000
    card = SAMPLE.with_name("README.md").read_text()
    assert hashlib.sha256(SAMPLE.read_bytes()).hexdigest() in card


@pytest.mark.slow
def test_sample_is_rebuilt_byte_for_byte() -> None:
    with zipfile.ZipFile(SAMPLE) as file:
        names = sorted(file.namelist())
        arrays = {
            label: np.stack([np.asarray(Image.open(file.open(name))) for name in names if name.startswith(label)])
            for label in ("cat", "dog")
        }
    assert build_sample.build(arrays) == SAMPLE.read_bytes()


def test_a_damaged_sample_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(SAMPLE.parent, tmp_path / "sample")
    damaged = tmp_path / "sample" / SAMPLE.name
    damaged.write_bytes(damaged.read_bytes()[:-1])
    monkeypatch.setattr("data.sources.places.SAMPLE", damaged)
    with pytest.raises(DataError, match=r"expected .*: restore it with git checkout"):
        fetch(data_section(source="sample"), tmp_path)
    assert not (tmp_path / RAW).exists()


def test_url_is_not_asked_again_for_pictures_that_are_here(tmp_path: Path) -> None:
    wrapped = {f"PetImages/{name}": content for name, content in class_files(2).items()}
    archive = zipped(tmp_path / "pets.zip", wrapped | {"readme[1].txt": b"x"})
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    section = data_section(source="url", url="http://127.0.0.1:1/pets.zip", sha256=sha256)
    with pytest.raises(DataError, match="cannot be downloaded"):
        fetch(section.model_copy(update={"url": "nonsense/pets.zip"}), tmp_path)
    write_files(tmp_path / DOWNLOADS, {"pets.zip": archive.read_bytes()})  # as a download leaves it
    assert fetch(section, tmp_path).ignored == ["readme[1].txt"]
    assert read_files(tmp_path / RAW) == class_files(2)
    (tmp_path / DOWNLOADS / "pets.zip").unlink()
    assert fetch(section, tmp_path).written == 0


@pytest.mark.parametrize("where", ["data/raw", "data", "data/raw/cat"])
def test_refuses_a_source_that_overlaps_its_output(tmp_path: Path, where: str) -> None:
    write_files(tmp_path / RAW, class_files(2))
    write_files(tmp_path / RAW / "cat", class_files(2, 10))
    with pytest.raises(DataError, match="overlap: use another folder"):
        fetch(data_section(path=where), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": None}, "data.source is folder, but data.path is null: set it"),
        ({"path": "nowhere"}, "nowhere does not exist"),
        ({"source": "archive", "path": "source"}, "is not an archive file: for a folder set data.source to folder"),
        ({"source": "kaggle", "kaggle": "nonsense"}, "data.kaggle must be OWNER/NAME"),
    ],
)
def test_says_what_is_wrong(tmp_path: Path, source: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        fetch(data_section(**changes), tmp_path)
    assert not (tmp_path / RAW).exists()


@pytest.mark.slow
def test_kaggle_without_a_network_is_one_clear_line(tmp_path: Path) -> None:
    line = command("data.fetch", "--source", "kaggle", "--kaggle", "salader/dogs-vs-cats")
    environment = {"KAGGLE_API_ENDPOINT": "http://127.0.0.1:1", "KAGGLEHUB_CACHE": str(tmp_path / "kaggle")}
    project(tmp_path)
    done = run(tmp_path, ["env", *(f"{key}={value}" for key, value in environment.items()), *line])
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: Kaggle data set salader/dogs-vs-cats cannot be downloaded")
    assert "Traceback" not in done.stderr


def test_a_failed_run_leaves_what_was_there(tmp_path: Path, source: Path) -> None:
    fetch(data_section(path=str(source)), tmp_path)
    shutil.rmtree(source / "dog")
    with pytest.raises(DataError, match="fewer than two class folders"):
        fetch(data_section(path=str(source)), tmp_path)
    assert read_files(tmp_path / RAW) == class_files(3)


def test_two_runs_at_once_are_refused(tmp_path: Path, source: Path) -> None:
    with workspace(tmp_path / "data/.fetch"), pytest.raises(DataError, match="another process is at work"):
        fetch(data_section(path=str(source)), tmp_path)


def test_command_line_overrides_params(tmp_path: Path, source: Path) -> None:
    done = run(project(tmp_path), command("data.fetch", "--source", "folder", "--path", str(source)))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "data/raw: 6 pictures (cat 3, dog 3) from folder, 6 written, 0 removed\n"


def test_other_rules_read_the_same_source_anew(tmp_path: Path, source: Path) -> None:
    fetch(data_section(path=str(source)), tmp_path)
    assert fetch(data_section(path=str(source), ignore=["2.png"]), tmp_path).removed == 2
    write_files(
        tmp_path,
        {
            "labels.csv": b"path,label\n"
            + b"".join(b"%s,%s\n" % (name.encode(), b"ox" if "1" in name else b"ram") for name in class_files(3))
        },
    )
    assert fetch(data_section(path=str(source), labels="labels.csv"), tmp_path).classes == {"ox": 2, "ram": 4}
    write_files(tmp_path, {"labels.csv": (tmp_path / "labels.csv").read_bytes().replace(b"ox", b"elk")})
    assert fetch(data_section(path=str(source), labels="labels.csv"), tmp_path).classes == {"elk": 2, "ram": 4}


@pytest.mark.parametrize("archive", [False, True])
def test_explains_how_a_source_would_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], archive: bool
) -> None:
    files = {
        f"x/{name}": content
        for prefix in ("Training/", "val/")
        for name, content in class_files(3, prefix=prefix).items()
    }
    path = (
        zipped(tmp_path / "a.zip", files | {"x/notes.txt": b""})
        if archive
        else write_files(tmp_path / "a", files | {"x/notes.txt": b""})
    )
    monkeypatch.chdir(project(tmp_path / "project"))
    monkeypatch.setattr("sys.argv", ["fetch", "--explain", str(path)])
    main()
    assert capsys.readouterr().out.splitlines() == [
        "folder          pictures  split       class",
        "x/Training/cat  3         train       cat",
        "x/Training/dog  3         train       dog",
        "x/val/cat       3         validation  cat",
        "x/val/dog       3         validation  dog",
        "besides 1 other file",
        "12 pictures in 2 classes; test will be drawn from train",
    ]
    assert [path.name for path in Path().iterdir()] == ["params.yaml"]


def test_explains_what_would_be_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: Path
) -> None:
    write_files(source, {"over.jpg": b"x"})
    monkeypatch.chdir(project(tmp_path / "project"))
    monkeypatch.setattr("sys.argv", ["fetch", "--explain", str(source)])
    with pytest.raises(DataError, match=r"1 picture .* would be lost \(over\.jpg\)"):
        main()
    assert re.search(
        r"^\. +1 +- +- +LOST: they lie beside the folders of the classes", capsys.readouterr().out, re.MULTILINE
    )


def test_command_line_ends_with_one_line(tmp_path: Path) -> None:
    done = run(project(tmp_path), command("data.fetch", "--source", "folder"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: data.source is folder, but data.path is null")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_killed_at_any_moment_then_run_again(tmp_path: Path) -> None:
    folder = project(tmp_path / "project")
    whole = fetch(data_section(source="sample"), tmp_path / "undisturbed")
    expected = read_files(tmp_path / "undisturbed" / RAW)
    assert whole.pictures == len(expected) == 2000
    kills = 0
    for seconds in (0.25, 0.4, 0.5, 0.6, 0.7, 0.8):
        kills += run_killed_after(folder, command("data.fetch"), seconds)
        left = read_files(folder / RAW)
        assert left in ({}, expected)  # all or nothing, never a part
        if seconds > 0.5:
            shutil.rmtree(folder / "data", ignore_errors=True)
    assert kills >= 2
    assert run(folder, command("data.fetch")).returncode == 0
    assert read_files(folder / RAW) == expected
    assert {entry.name for entry in os.scandir(folder / "data/.fetch")} == {"lock", "state.json"}
