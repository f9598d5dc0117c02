"""Scoring: where labels come from, one bad file refused, the figures right, and a run that was killed goes on."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data.errors import DataError
from tests import killing
from tests.tiny import tiny_model_folder, tiny_picture
from training import score as module
from training.model.classifier import Classifier
from training.model.folder import ModelFolder
from training.score import CHUNK, PictureFile, find, labelled, listed, replace, score, summary, table_file

CLASSES = ("cat", "dog")
RENAME = {"cats": "cat", "dogs": "dog"}


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return tiny_model_folder(tmp_path / "model")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for label, name in enumerate(("cats", "dogs")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(5):
            (tmp_path / f"pictures/{name}/{number}.png").write_bytes(tiny_picture(label, number, noise=0.0))
    (tmp_path / "pictures/dogs/9.jpg").write_bytes(b"no picture")
    return tmp_path / "pictures"


def test_folders_are_renamed(pictures: Path) -> None:
    assert {picture.label for picture in labelled(pictures, {"cats": "cat"})} == {"cat", "dogs"}


def test_answers_and_summary(folder: ModelFolder, pictures: Path, tmp_path: Path) -> None:
    scores = score(folder, labelled(pictures, RENAME))
    assert list(scores["refused"].dropna()) == ["not_an_image"]
    assert summary(scores).startswith("accuracy 0.9091 (95 % interval ")
    assert summary(scores).endswith("11 pictures, 1 refused")
    replace(tmp_path / "scores.csv", scores)
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert lines[0] == "path,label,prediction,refused,cat,dog"
    assert sum(line.split(",")[1:3] in (["cat", "cat"], ["dog", "dog"]) for line in lines[1:]) == 10
    assert [line for line in lines if "not_an_image" in line] == [f"{pictures}/dogs/9.jpg,dog,,not_an_image,,"]


def test_a_parquet_file_holds_the_same_to_the_last_bit(folder: ModelFolder, pictures: Path, tmp_path: Path) -> None:
    scores = score(folder, labelled(pictures, RENAME))
    replace(tmp_path / "scores.parquet", scores)
    read = pd.read_parquet(tmp_path / "scores.parquet")
    pd.testing.assert_frame_equal(read, scores)
    assert read["cat"].dtype == np.float32
    answer = Classifier(folder).predict_bytes([Path(read["path"][3]).read_bytes()])[0]
    np.testing.assert_allclose(read.loc[3, ["cat", "dog"]].to_numpy(float), answer, atol=1e-6)


def test_folders_that_are_no_classes_give_no_labels(
    folder: ModelFolder, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "cats").rename(pictures / "2024")
    (pictures / "dogs").rename(pictures / "2025")
    (pictures / "2025/.thumbnail.png").write_bytes(b"")
    found = find(pictures, None, RENAME, CLASSES)
    assert len(found) == 11
    assert {picture.label for picture in found} == {None}
    assert "without labels: none of its folders is called cat or dog" in capsys.readouterr().out
    assert summary(score(folder, found)) == "5 cat, 5 dog, 11 pictures, 1 refused"


def test_one_flat_folder_is_scored(pictures: Path) -> None:
    assert len(find(pictures / "cats", None, RENAME, CLASSES)) == 5
    assert {picture.label for picture in find(pictures, None, RENAME, CLASSES)} == {"cat", "dog"}


def test_a_manifest_lists_pictures_with_labels_or_without(pictures: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,class,split\npictures/cats/1.png,cat,test\npictures/dogs/2.png,,test\n")
    assert find(manifest, None, RENAME, CLASSES) == [
        PictureFile(pictures / "cats/1.png", "cat"),
        PictureFile(pictures / "dogs/2.png", None),
    ]
    manifest.write_text("path\n1.png\n")
    assert listed(manifest, pictures / "cats") == [PictureFile(pictures / "cats/1.png", None)]


@pytest.mark.parametrize("text", ["", "path\n", "file\na.png\n", "label,path\ncat\n"])
def test_a_manifest_without_paths_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DataError, match=r"list\.csv needs a first line that names its columns"):
        listed(tmp_path / "list.csv", tmp_path)


def test_what_is_not_there_is_told_before_anything_is_scored(folder: ModelFolder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png cannot be read .*--root"):
        score(folder, [PictureFile(tmp_path / "gone.png", None)])
    with pytest.raises(DataError, match="is not a folder"):
        find(tmp_path / "gone", None, RENAME, CLASSES)


def test_a_class_called_like_a_column(tmp_path: Path, pictures: Path) -> None:
    (first, *_) = labelled(pictures, RENAME)
    rows = score(tiny_model_folder(tmp_path / "other", ("cat", "label")), [first])
    assert list(rows.columns) == ["path", "label", "prediction", "refused", "cat", "probability of label"]
    assert rows["label"][0] == first.label


@pytest.mark.slow
def test_a_run_that_was_cut_off_goes_on(
    folder: ModelFolder, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = labelled(pictures, RENAME) * (2 * CHUNK // 11)
    whole = score(folder, many)
    kept = tmp_path / "kept"
    score(folder, many, kept)
    first, last = sorted(kept.glob("*.parquet"))
    last.unlink()
    asked: list[Path] = []

    def answer(classifier: Classifier, path: Path) -> object:
        asked.append(path)
        return classifier.predict_bytes([path.read_bytes()])[0] if path.suffix == ".png" else "not_an_image"

    monkeypatch.setattr(module, "answer", answer)
    pd.testing.assert_frame_equal(score(folder, many, kept), whole)
    assert len(asked) == len(many) - CHUNK
    assert len(pd.read_parquet(first)) == CHUNK


def test_other_pictures_or_another_model_start_anew(folder: ModelFolder, pictures: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    found = labelled(pictures, RENAME)
    score(folder, found, kept)
    (pictures / "cats/1.png").write_bytes(tiny_picture(1, 77, noise=0.0))
    assert score(folder, found, kept)["prediction"][1] == "dog"
    contrary = tiny_model_folder(tmp_path / "contrary", bias=-100.0)
    assert set(score(contrary, found, kept)["prediction"].dropna()) == {"dog"}


@pytest.mark.slow
def test_a_killed_command_leaves_no_table_and_its_rerun_a_whole_one(folder: ModelFolder, tmp_path: Path) -> None:
    project = killing.project(tmp_path / "project")
    (project / "pictures").mkdir()
    for number in range(4 * CHUNK):
        shutil.copyfile(folder.path / f"self_check/{number % 2}.png", project / f"pictures/{number}.png")
    line = killing.command("training.score", "pictures", "--model", str(folder.path), "--out", "scores.parquet")
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(line, cwd=project, env=killing.environment(), stdout=quiet, stderr=quiet)
    while process.poll() is None and not list(project.glob(".scores.parquet.parts/*.parquet")):
        time.sleep(0.005)
    process.kill()
    assert process.wait() != 0, "the run ended before it could be killed"
    assert not (project / "scores.parquet").exists()
    done = killing.run(project, line)
    assert done.returncode == 0, done.stderr
    assert "pictures were scored before" in done.stdout
    assert len(pd.read_parquet(project / "scores.parquet")) == 4 * CHUNK
    assert sorted(path.name for path in project.iterdir()) == ["params.yaml", "pictures", "scores.parquet"]


def test_another_suffix_is_refused() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"'scores\.xlsx' does not end in \.csv or \.parquet"):
        table_file("scores.xlsx")
