"""Scoring a folder: labels from folder names, one bad file refused, the figures right."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import tiny_model_folder, tiny_picture
from training.inference import ModelFolder
from training.score import labelled, score, summary, write_csv


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
    assert {label for _, label in labelled(pictures, {"cats": "cat"})} == {"cat", "dogs"}


def test_answers_and_summary(folder: ModelFolder, pictures: Path, tmp_path: Path) -> None:
    scored = score(folder, labelled(pictures, {"cats": "cat", "dogs": "dog"}))
    assert [row.refused for row in scored if row.probabilities is None] == ["not_an_image"]
    assert summary(scored, folder.classes).startswith("accuracy 0.9091 (95 % interval ")
    assert summary(scored, folder.classes).endswith("11 pictures, 1 refused")
    write_csv(tmp_path / "scores.csv", scored, folder.classes)
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert lines[0] == "path,label,prediction,cat,dog"
    assert sum(line.split(",")[1:3] in (["cat", "cat"], ["dog", "dog"]) for line in lines[1:]) == 10
