"""Class names that mean something to Matplotlib are drawn as they are written."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import monitoring.plots
from training.evaluation import plots

CLASSES = ("US$ / A$", "_x", "^", "$\\frac{$", "100%", "a & b (c)")


@pytest.fixture
def legends(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the legends of the figures say that were drawn."""
    found: list[list[str]] = []

    def keep(figure: Figure, *_: object) -> str:
        figure.canvas.draw()
        legend = figure.axes[0].get_legend()
        found.append([text.get_text().lstrip("\N{ZERO WIDTH SPACE}") for text in legend.get_texts()] if legend else [])
        assert not any(text.get_parse_math() for text in figure.axes[0].get_xticklabels())
        return ""

    monkeypatch.setattr(plots, "_save", keep)
    monkeypatch.setattr(monitoring.plots, "image", keep)
    return found


@pytest.mark.filterwarnings("error")
def test_every_class_is_in_every_legend(legends: list[list[str]]) -> None:
    size = len(CLASSES)
    labels, eye = np.arange(size), np.eye(size)
    plots.roc(eye, labels, CLASSES, Path())
    plots.confusion(eye.astype(int).tolist(), CLASSES, Path())
    monitoring.plots.labels({datetime(2026, 1, 1, tzinfo=UTC): Counter(CLASSES)}, CLASSES)
    monitoring.plots.confusion(labels, labels, CLASSES)
    assert legends == [[f"{name} (area 1.0000)" for name in CLASSES], [], list(CLASSES), []]
