"""Plots stay small, however many classes there are."""

from pathlib import Path

import numpy as np
from PIL import Image

from training.evaluation import metrics, plots

CLASSES = tuple(f"class {number}" for number in range(60))


def test_confused_pairs_fit_on_a_page(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(60), 2)
    pairs = metrics.confusions(labels, np.roll(labels, 1), CLASSES)
    assert len(pairs) == 20
    for name, drawn in (("some", pairs), ("none", [])):
        plots.confused(drawn, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as image:
            assert max(image.size) <= 1000


def test_roc_shows_the_worst_of_many_classes(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(60), 2)
    probs = np.random.default_rng(1).dirichlet(np.ones(60), 120)
    plots.roc(probs, labels, CLASSES, tmp_path / "roc.png")
    with Image.open(tmp_path / "roc.png") as image:
        assert image.size == (500, 500)
