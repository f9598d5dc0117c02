from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.manifest import Manifest
from tests.tiny import SIZE, tiny_data, tiny_model_folder
from training.evaluation import scores
from training.evaluation.scores import BATCH, NO_CHANCE, Scores, answers, latencies_ms, score
from training.model.classifier import Classifier


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    monkeypatch.chdir(tmp_path)
    return Manifest.read(tiny_data(tmp_path, per_class=20))


def test_scores_are_the_answers_of_the_served_classifier(manifest: Manifest, tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model", manifest=manifest)
    pictures = manifest.split("test")
    found = score(folder, pictures)
    expected = Classifier(folder).predict_bytes([picture.path.read_bytes() for picture in pictures])
    assert found.probabilities == pytest.approx(expected, abs=1e-6)
    assert found.accuracy == pytest.approx(folder.card["metrics"]["accuracy"])
    assert found.log_loss == pytest.approx(folder.card["metrics"]["log_loss"], rel=1e-4)


def test_a_model_is_scored_once(manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_model_folder(tmp_path / "model", manifest=manifest)
    first = score(folder, manifest.split("test"))
    monkeypatch.setattr(scores, "_predict", lambda *_: pytest.fail("scored again"))
    assert (score(folder, manifest.split("test")).probabilities == first.probabilities).all()


def test_a_class_that_the_model_does_not_know_is_an_error_by_name() -> None:
    found = Scores(("cat", "dog"), np.array([[0.9, 0.1], [0.2, 0.8]], np.float32), ("fox", "dog"))
    assert found.right.tolist() == [False, True]
    assert found.losses == pytest.approx([-np.log(NO_CHANCE), -np.log(0.8)])


def test_latencies_are_measured_for_each_model(manifest: Manifest, tmp_path: Path) -> None:
    folders = [tiny_model_folder(tmp_path / name) for name in "ab"]
    taken = latencies_ms(folders, [picture.path.read_bytes() for picture in manifest.split("test")[:2]], turns=2)
    assert len(taken) == 2
    assert min(taken) > 0


def test_answers_of_all_batches_come_in_order(tmp_path: Path) -> None:
    classifier = Classifier(tiny_model_folder(tmp_path / "model"))
    images = np.random.default_rng(0).integers(0, 256, (2 * BATCH + 3, SIZE, SIZE, 3), np.uint8)
    probabilities, novelty = answers(classifier, images, ("probabilities", "novelty"), "test")
    np.testing.assert_allclose(probabilities, classifier.predict(images), atol=1e-6)
    assert novelty.shape == (len(images),)
