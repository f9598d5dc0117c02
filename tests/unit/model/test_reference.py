"""The reference of a model folder: what is stored comes back, and sketches of new pictures fit those stored."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import tiny_model_folder, tiny_picture
from training.model.classifier import Classifier
from training.model.preprocess import load
from training.model.properties import PROPERTIES, measure
from training.model.reference import REFERENCE_FILE, Reference


def build(count: int = 50, directions: int = 40) -> Reference:
    random = np.random.default_rng(0)
    image = np.zeros((8, 8, 3), np.uint8)
    return Reference.build(
        [measure(image + number, 10 + number, 10) for number in range(count)],
        random.dirichlet([1, 1, 1], count).astype(np.float32),
        random.normal(3, 1, (count, 100)).astype(np.float32),
        random.normal(0, 0.1, (100, directions)).astype(np.float32),
        max_short_side=512,
    )


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    built = build()
    built.save(tmp_path)
    loaded = Reference.load(tmp_path)
    assert loaded is not None
    for name, value in vars(built).items():
        np.testing.assert_array_equal(getattr(loaded, name), value)
        assert np.asarray(getattr(loaded, name)).dtype == np.asarray(value).dtype


def test_shapes_and_values() -> None:
    built = build()
    assert built.properties.shape == (50, len(PROPERTIES))
    assert built.properties[7, 0] == 7
    assert built.sketches.shape == (50, 32)
    assert built.projection.shape == (100, 32)
    assert np.abs(built.sketches.astype(float).mean(axis=0)).max() < 1e-2
    assert set(built.labels.tolist()) == {0, 1, 2}
    assert built.confidences.min() >= 1 / 3


def test_the_same_reference_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build().save(tmp_path)
    first = (tmp_path / REFERENCE_FILE).read_bytes()
    later = time.time() + 86_400
    monkeypatch.setattr(time, "time", lambda: later)
    build().save(tmp_path)
    assert (tmp_path / REFERENCE_FILE).read_bytes() == first


def test_a_model_folder_carries_it_and_it_fits_the_network(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model")
    assert REFERENCE_FILE in (folder.path / "SHA256SUMS").read_text()
    reference = Reference.load(folder.path)
    assert reference is not None
    image = load(tiny_picture(0, 5000), folder.preprocessing)  # the first one of the reference
    [embedding] = Classifier(folder).run(image[None], ("embedding",))
    np.testing.assert_allclose(reference.sketch(embedding), reference.sketches[:1], atol=1e-2)


def test_fewer_directions_leave_the_rest_zero() -> None:
    built = build(directions=3)
    assert not built.sketches[:, 3:].any()
    assert built.sketches[:, :3].all()


def test_an_old_model_folder_has_none(tmp_path: Path) -> None:
    assert Reference.load(tmp_path) is None
