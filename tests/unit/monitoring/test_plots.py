"""The plots of the monitoring pages, as figures: what a person needs to read them is there."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from matplotlib.dates import num2date
from matplotlib.figure import Figure

from monitoring import plots, shift
from monitoring.shift import TESTS, Sample
from training.common import html

NOW = datetime(2026, 11, 27, 20, tzinfo=UTC)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Those that were drawn."""
    drawn: list[Figure] = []

    def keep(figure: Figure, title: str) -> str:
        figure.canvas.draw()
        drawn.append(figure)
        return ""

    monkeypatch.setattr(plots, "image", keep)
    return drawn


def test_every_axis_has_a_label_and_no_plot_is_wide(figures: list[Figure]) -> None:
    random = np.random.default_rng(1)
    sample = Sample.of(random.random((9, 6)), random.random(9), np.arange(9) % 2, random.random((9, 32)), 512)
    plots.shifts(sample, sample, [shift.Test(name, 0.1, 0.5, 0.01) for name in TESTS], ("cat", "dog"))
    assert len(figures) == len(TESTS)
    plots.accuracy({"3": [(NOW, True)]})
    plots.labels({NOW: Counter(cat=1)}, ("cat", "dog"))
    plots.confusion(np.array([0, 1]), np.array([0, 1]), ("cat", "dog"))
    plots.confusion(np.arange(60), np.roll(np.arange(60), 1), tuple(str(number) for number in range(60)))
    plots.reliability(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1]))
    plots.latency([1.0, 2.0], "latency")
    for figure in figures:
        [axes] = figure.axes
        assert axes.get_xlabel()
        assert axes.get_ylabel()
        assert axes.get_title()
        assert figure.get_figwidth() <= 7


@pytest.mark.parametrize("hours", [0, 5, 24 * 90])
def test_the_axis_of_time_begins_and_ends_near_the_points(figures: list[Figure], hours: int) -> None:
    first = NOW - timedelta(hours=hours)
    plots.accuracy({"3": [(first, True), (NOW, False)]})
    plots.labels({first: Counter(cat=2), NOW: Counter(dog=1)}, ("cat", "dog"))
    for figure in figures:
        low, high = (num2date(end) for end in figure.axes[0].get_xlim())
        room = max(timedelta(hours=1), (NOW - first) / 20) + timedelta(seconds=1)
        assert first - room <= low < first
        assert NOW < high <= NOW + room


def test_the_legend_tells_how_many_answers_a_point_stands_for(figures: list[Figure]) -> None:
    plots.accuracy({"3": [(NOW, True)] * 40, "4": [(NOW, True)] * 5})
    legend = figures[0].axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["version 3, groups of 3 or 4", "version 4, groups of 1"]


def test_pictures_shrink_with_the_page() -> None:
    assert "img{margin:1px;max-width:100%;height:auto}" in html.page("", [])
