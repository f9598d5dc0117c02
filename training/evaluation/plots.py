"""Pictures of an evaluation: each function draws one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import ConfusionMatrixDisplay, auc, roc_curve

from training.evaluation import lettering, metrics
from training.evaluation.metrics import Floats, Labels

GALLERY_COLUMNS = 6
CURVES = 10  # of more classes than fit into a legend

lettering.use()


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)


def confusion(matrix: list[list[int]], classes: tuple[str, ...], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(1.2 * len(classes) + 3, 1.2 * len(classes) + 2))
    ConfusionMatrixDisplay(np.array(matrix), display_labels=classes).plot(ax=axes, cmap="Blues", colorbar=False)
    axes.set_title("Test split")
    _save(figure, path)


def confused(pairs: Sequence[dict[str, Any]], path: Path) -> None:
    """Of many classes those that are confused most (training.evaluation.metrics.confusions)."""
    figure, axes = plt.subplots(figsize=(9, 0.3 * len(pairs) + 1.5))
    names = [f"{lettering.shown(one['is'])}, taken for {lettering.shown(one['says'])}" for one in pairs]
    axes.barh(range(len(pairs)), [one["pictures"] for one in pairs])
    axes.set_yticks(range(len(pairs)), names)
    axes.invert_yaxis()
    axes.set(xlabel="pictures", title="Confused most on the test split" if pairs else "No mistakes on the test split")
    _save(figure, path)


def reliability(before: Floats, after: Floats, labels: Labels, path: Path) -> None:
    """Share of right answers against confidence, before and after temperature scaling."""
    figure, axes = plt.subplots(figsize=(5, 5))
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, label="perfect")
    for probs, name in ((before, "before temperature"), (after, "after temperature")):
        points = [(one["confidence"], one["accuracy"]) for one in metrics.reliability(probs, labels)]
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(xlabel="confidence", ylabel="share that is right", title="Reliability on the test split")
    axes.legend()
    _save(figure, path)


def roc(probs: Floats, labels: Labels, classes: tuple[str, ...], path: Path) -> None:
    """One class against the rest; of many classes the worst."""
    areas = [auc(*roc_curve(labels == index, probs[:, index])[:2]) for index in range(len(classes))]
    order = range(len(classes)) if len(classes) <= CURVES else np.argsort(areas, kind="stable")[:CURVES].tolist()
    figure, axes = plt.subplots(figsize=(5, 5))
    for index in order:
        false_positive, true_positive, _ = roc_curve(labels == index, probs[:, index])
        axes.plot(false_positive, true_positive, label=f"{lettering.shown(classes[index])} (area {areas[index]:.4f})")
    worst = f", the worst {CURVES} of {len(classes)} classes" if len(classes) > CURVES else ""
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title=f"ROC on the test split{worst}")
    axes.legend()
    _save(figure, path)


def learning_curves(history: Sequence[dict[str, Any]], path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    epochs = [row["epoch"] for row in history]
    for axes, kind in ((left, "loss"), (right, "accuracy")):
        for part in ("train", "validation"):
            axes.plot(epochs, [row[f"{part}_{kind}"] for row in history], label=part)
        axes.set(xlabel="epoch", ylabel=kind)
        axes.legend()
    _save(figure, path)


def worst(
    files: Sequence[Path], probs: Floats, labels: Labels, classes: tuple[str, ...], count: int, path: Path
) -> None:
    """The mistakes with the highest confidence; an empty page says there are none."""
    wrong = np.flatnonzero(probs.argmax(1) != labels)
    wrong = wrong[np.argsort(-probs[wrong].max(1), kind="stable")][:count]
    rows = max(1, -(-len(wrong) // GALLERY_COLUMNS))
    figure, grid = plt.subplots(rows, GALLERY_COLUMNS, figsize=(2 * GALLERY_COLUMNS, 2.4 * rows), squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, index in zip(grid.flat, wrong, strict=False):
        with Image.open(files[int(index)]) as picture:
            axes.imshow(picture.convert("RGB"))
        guess = probs[index].argmax()
        axes.set_title(f"{classes[guess]} {probs[index, guess]:.2f}\nis {classes[labels[index]]}", fontsize=8)
    figure.suptitle(f"{len(wrong)} worst mistakes of the test split" if len(wrong) else "no mistakes on the test split")
    _save(figure, path)
