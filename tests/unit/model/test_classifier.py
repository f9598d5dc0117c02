"""A model folder is believed only whole and unchanged, and only when it answers as it did at evaluation."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.killing import ROOT
from tests.tiny import tiny_model_folder, tiny_picture
from training.model.classifier import Classifier
from training.model.folder import CARD_FILE, MODEL_FILE, ModelFolder, ModelFolderError, write_sums


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return tiny_model_folder(tmp_path / "model")


def test_a_whole_folder_opens_and_answers(folder: ModelFolder) -> None:
    classifier = Classifier(folder)
    probabilities = classifier.predict_bytes([tiny_picture(0, 1, noise=0), tiny_picture(1, 1, noise=0)])
    assert [folder.classes[index] for index in probabilities.argmax(1)] == ["cat", "dog"]
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    classifier.self_check()


def test_one_flipped_byte_is_found_and_named(folder: ModelFolder) -> None:
    model = folder.path / MODEL_FILE
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    with pytest.raises(ModelFolderError, match=r"model\.onnx was changed"):
        ModelFolder.open(folder.path)


def test_missing_and_additional_files_are_named(folder: ModelFolder) -> None:
    (folder.path / "self_check/0.png").rename(folder.path / "self_check/9.png")
    with pytest.raises(ModelFolderError, match=r"self_check/0\.png is missing"):
        ModelFolder.open(folder.path)
    (folder.path / "self_check/9.png").rename(folder.path / "self_check/0.png")
    (folder.path / "evil.py").touch()
    with pytest.raises(ModelFolderError, match=r"evil\.py is not listed"):
        ModelFolder.open(folder.path)


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="SHA256SUMS is missing"):
        ModelFolder.open(tmp_path / "nothing")


def test_another_answer_than_at_evaluation_fails_the_self_check(folder: ModelFolder) -> None:
    card = folder.path / CARD_FILE
    values = json.loads(card.read_text())
    values["self_check"][0]["probabilities"] = [0.5, 0.5]
    card.write_text(json.dumps(values))
    write_sums(folder.path)
    with pytest.raises(ModelFolderError, match=r"self-check failed on .*0\.png"):
        Classifier(ModelFolder.open(folder.path)).self_check()


@pytest.mark.parametrize(("here", "passes"), [(True, False), (False, True)])
def test_the_other_resizer_may_answer_a_little_differently(
    folder: ModelFolder, monkeypatch: pytest.MonkeyPatch, here: bool, passes: bool
) -> None:
    """A model exported where cykooz-resizer is, served where Pillow resizes, answers nearly the same."""
    card = folder.path / CARD_FILE
    values = json.loads(card.read_text())
    values["lineage"]["environment"]["cykooz-resizer"] = "4"
    values["self_check"][0]["probabilities"][0] -= 0.01
    card.write_text(json.dumps(values))
    write_sums(folder.path)
    monkeypatch.setattr("training.model.classifier.QUICK", here)
    with contextlib.nullcontext() if passes else pytest.raises(ModelFolderError, match=r"self-check failed"):
        Classifier(ModelFolder.open(folder.path)).self_check()


def test_a_batch_answers_as_single_pictures_do(folder: ModelFolder) -> None:
    classifier = Classifier(folder)
    pictures = [tiny_picture(number % 2, number) for number in range(9)]
    single = np.concatenate([classifier.predict_bytes([picture]) for picture in pictures])
    np.testing.assert_allclose(classifier.predict_bytes(pictures), single, atol=1e-6)


def test_onnx_runtime_reports_to_nobody_and_says_nothing_without_a_home() -> None:
    code = "import training.model.classifier, onnxruntime, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {"PATH": os.environ["PATH"], "HOME": "/proc/nonexistent"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1\n", "")
