"""Plots of the monitoring pages, each an img tag that holds its PNG."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import ConfusionMatrixDisplay

from monitoring.shift import FIGURES, Sample, Test
from training import html
from training.metrics import CALIBRATION_BINS, Floats, Labels, accuracy_interval


def image(figure: Figure, title: str) -> str:
    file = io.BytesIO()
    figure.savefig(file, dpi=90, metadata={"Software": None})
    return html.picture(file.getvalue(), "image/png", title)


def shifts(reference: Sample, window: Sample, tests: Sequence[Test], classes: Sequence[str]) -> str:
    """A panel for each test: how the reference and the window are distributed; red titles alarm."""
    figure = Figure(figsize=(13, 10), layout="constrained")
    panels = figure.subplots(3, 3)
    for axes, test in zip(panels.flat, tests, strict=True):
        for sample, name in ((reference, "reference"), (window, "window")):
            if test.name in FIGURES:
                axes.ecdf(sample.figures[:, FIGURES.index(test.name)], label=name)
            elif test.name == "embedding":
                axes.scatter(*sample.sketches[:, :2].T, s=5, alpha=0.5, label=name)
            else:
                shares = np.bincount(sample.labels, minlength=len(classes)) / len(sample)
                axes.bar(np.arange(len(classes)) + 0.4 * (sample is window), shares, 0.4, label=name)
                axes.set_xticks(np.arange(len(classes)) + 0.2, classes)
        colour = "firebrick" if test.alarm else "black"
        axes.set_title(f"{test.name}: distance {test.statistic:.3f}, p {test.p_value:.4f}", color=colour)
    panels[0, 0].legend()
    return image(figure, "reference and window")


def accuracy(said: Mapping[str, Sequence[tuple[datetime, bool]]]) -> str:
    """Live accuracy over time by version, with its 95 % interval; `said`: when, and whether the answer was right.

    Each point stands for a twelfth of the feedback on its version, so every one is as sure as the next.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots()
    for version, found in said.items():
        parts = [part for part in np.array_split(np.arange(len(found)), 12) if len(part)]
        times = [found[int(part[len(part) // 2])][0] for part in parts]
        right = [sum(found[int(number)][1] for number in part) for part in parts]
        shares = np.array([count / len(part) for count, part in zip(right, parts, strict=True)])
        low, high = np.array([accuracy_interval(count, len(part)) for count, part in zip(right, parts, strict=True)]).T
        axes.errorbar(times, shares, np.abs([shares - low, high - shares]), fmt="o-", capsize=3, label=version)  # type: ignore[arg-type]
    figure.autofmt_xdate()
    axes.set(ylabel="accuracy", title="Live accuracy by version, from feedback")
    axes.legend(title="version")
    return image(figure, "live accuracy")


def labels(hours: Mapping[datetime, Counter[str]], classes: Sequence[str]) -> str:
    """The share of each class among the answers, over time."""
    figure = Figure(figsize=(10, 3), layout="constrained")
    axes = figure.subplots()
    times = sorted(hours)
    counts = np.array([[hours[time][name] for name in classes] for time in times], float)
    shares = counts / counts.sum(axis=1, keepdims=True)
    for name, share in zip(classes, shares.T, strict=True):
        axes.plot(times, share, "o-", label=name)  # type: ignore[arg-type]
    figure.autofmt_xdate()
    axes.set(ylabel="share of the answers", ylim=(0, 1), title="Label mix by hour")
    axes.legend()
    return image(figure, "label mix")


def confusion(matrix: NDArray[np.int64], classes: Sequence[str]) -> str:
    figure = Figure(figsize=(1.2 * len(classes) + 3, 1.2 * len(classes) + 2), layout="constrained")
    axes = figure.subplots()
    ConfusionMatrixDisplay(matrix, display_labels=classes).plot(ax=axes, cmap="Blues", colorbar=False)
    return image(figure, "confusion")


def reliability(probabilities: Floats, truth: Labels) -> str:
    """Share of right answers against confidence."""
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    points = [(confidence[bins == one].mean(), right[bins == one].mean()) for one in np.unique(bins)]
    axes.plot(*zip(*points, strict=True), marker="o")
    axes.set(xlabel="confidence", ylabel="share that is right", title="Calibration")
    return image(figure, "calibration")


def latency(milliseconds: Sequence[float], title: str) -> str:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.hist(milliseconds, bins=60)
    for share, colour in ((0.5, "black"), (0.95, "darkorange"), (0.99, "firebrick")):
        value = float(np.quantile(milliseconds, share))
        axes.axvline(value, color=colour, label=f"p{share * 100:.0f} {value:.1f} ms")
    axes.set(xlabel="milliseconds", ylabel="pictures", title=title)
    axes.legend()
    return image(figure, title)
