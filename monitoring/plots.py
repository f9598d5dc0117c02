"""Plots of the monitoring pages, each an img tag that holds its PNG."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, DateFormatter
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

from monitoring.shift import FIGURES, Sample, Test
from training.common import html
from training.common.intervals import wilson_corrected
from training.evaluation import lettering
from training.evaluation.metrics import CALIBRATION_BINS, MATRIX_CLASSES, Floats, Labels, confusions

lettering.use()

GROUPS = 12  # at most, in which live accuracy is drawn for each version
UNITS = {  # of FIGURES, as far as their names do not say it
    "brightness": "mean luma, 0 to 255",
    "contrast": "deviation of luma, 0 to 127.5",
    "sharpness": "deviation of the Laplacian",
    "saturation": "mean saturation, 0 to 1",
    "short_side": "pixels of the short side",
    "aspect": "width to height",
}


def image(figure: Figure, title: str) -> str:
    file = io.BytesIO()
    figure.savefig(file, dpi=90, metadata={"Software": None})
    return html.picture(file.getvalue(), "image/png", title)


def shifts(reference: Sample, window: Sample, tests: Sequence[Test], classes: Sequence[str]) -> str:
    """A plot for each test, as many beside one another as there is room for: how the reference and the window are
    distributed; red titles alarm."""
    return "\n".join(_shift(reference, window, test, classes) for test in tests)


def _shift(reference: Sample, window: Sample, test: Test, classes: Sequence[str]) -> str:
    figure = Figure(figsize=(3.35, 3), layout="constrained")
    axes = figure.subplots()
    for sample, name in ((reference, "reference"), (window, "window")):
        if test.name in FIGURES:
            axes.ecdf(sample.figures[:, FIGURES.index(test.name)], label=name)
            axes.set(xlabel=UNITS.get(test.name, test.name), ylabel="share up to this value")
        elif test.name == "embedding":
            axes.scatter(sample.sketches[:, 0], sample.sketches[:, 1], s=5, alpha=0.5, label=name)
            axes.set(xlabel="first direction", ylabel="second direction")
        else:
            shares = np.bincount(sample.labels, minlength=len(classes)) / len(sample)
            axes.bar(np.arange(len(classes)) + 0.4 * (sample is window), shares, 0.4, label=name)
            axes.set_xticks(np.arange(len(classes)) + 0.2, classes)
            axes.set(xlabel="answer", ylabel="share of the pictures")
    colour = "firebrick" if test.alarm else "black"
    title = f"{test.name}: distance {test.statistic:.3f}, p {test.p_value:.4f}"
    axes.set_title(title, color=colour, fontsize="small")
    axes.legend(fontsize="small")
    return image(figure, title)


def accuracy(said: Mapping[str, Sequence[tuple[datetime, bool]]]) -> str:
    """Live accuracy over time by version, with its 95 % interval; `said`: when, and whether the answer was right.

    Each point stands for a twelfth of the feedback on its version, so every one is as sure as the next; the legend
    names how many answers that is.
    """
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    drawn: list[datetime] = []
    for version, found in said.items():
        parts = [part for part in np.array_split(np.arange(len(found)), GROUPS) if len(part)]
        sizes = " or ".join(map(str, sorted({len(part) for part in parts})))
        times = [found[int(part[len(part) // 2])][0] for part in parts]
        right = [sum(found[int(number)][1] for number in part) for part in parts]
        shares = np.array([count / len(part) for count, part in zip(right, parts, strict=True)])
        low, high = np.array([wilson_corrected(count, len(part)) for count, part in zip(right, parts, strict=True)]).T
        name = f"version {version}, groups of {sizes}"
        axes.errorbar(times, shares, np.abs([shares - low, high - shares]), fmt="o-", capsize=3, label=name)  # type: ignore[arg-type]
        drawn += times
    _over_time(axes, drawn)
    axes.set(ylabel="accuracy", title="Live accuracy by version, from feedback, with 95 % intervals")
    axes.legend()
    return image(figure, "live accuracy")


def _over_time(axes: Axes, times: Sequence[datetime]) -> None:
    """The axis of time, with room around the points also where there is one only."""
    room = max((max(times) - min(times)) / 20, timedelta(hours=1))
    axes.set_xlim(min(times) - room, max(times) + room)  # type: ignore[arg-type]
    axes.xaxis.set_major_locator(AutoDateLocator(maxticks=7))
    axes.xaxis.set_major_formatter(DateFormatter("%Y-%m-%d\n%H:%M"))
    axes.set_xlabel("time (UTC)")


def labels(hours: Mapping[datetime, Counter[str]], classes: Sequence[str]) -> str:
    """The share of each class among the answers, over time."""
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    times = sorted(hours)
    counts = np.array([[hours[time][name] for name in classes] for time in times], float)
    shares = counts / counts.sum(axis=1, keepdims=True)
    for name, share in zip(classes, shares.T, strict=True):
        axes.plot(times, share, "o-", label=lettering.shown(name))  # type: ignore[arg-type]
    _over_time(axes, times)
    axes.set(ylabel="share of the answers", ylim=(0, 1), title="Label mix by hour")
    axes.legend()
    return image(figure, "label mix")


def confusion(truth: Labels, guesses: Labels, classes: Sequence[str]) -> str:
    """The confusion matrix, or of many classes the pairs that are confused most."""
    if len(classes) > MATRIX_CLASSES:
        return _confused(confusions(truth, guesses, tuple(classes)))
    matrix = confusion_matrix(truth, guesses, labels=np.arange(len(classes)))
    figure = Figure(figsize=(1.2 * len(classes) + 3, 1.2 * len(classes) + 2), layout="constrained")
    axes = figure.subplots()
    ConfusionMatrixDisplay(matrix, display_labels=classes).plot(ax=axes, cmap="Blues", colorbar=False)
    axes.set(xlabel="answer", ylabel="label", title="Confusion")
    return image(figure, "confusion")


def _confused(pairs: Sequence[dict[str, Any]]) -> str:
    figure = Figure(figsize=(7, 0.3 * len(pairs) + 1.5), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(pairs)), [one["pictures"] for one in pairs])
    axes.set_yticks(range(len(pairs)), [f"{one['is']}: {one['says']}" for one in pairs])
    axes.invert_yaxis()
    axes.set(xlabel="pictures", ylabel="label: answer", title="Confused most")
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
