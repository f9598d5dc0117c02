"""Figures that describe a classifier, from its probabilities [N, classes] and the true labels [N]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import softmax

from training.common.intervals import wilson

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

CALIBRATION_BINS = 15
ROOT = 1e-9
QUANTILE_95 = 1.96  # of the normal distribution, two-sided


def probabilities(logits: Floats, temperature: float) -> Floats:
    """Calibrated probabilities [N, classes]."""
    found: Floats = softmax(logits / temperature, axis=1)
    return found


MATRIX_CLASSES = 25  # at most, of a confusion matrix: of more it is neither legible nor small
CONFUSED = 20  # pairs of classes, the most confused ones
TOP = 5


def share(hits: NDArray[np.bool_]) -> dict[str, Any]:
    """A share with its 95 % Wilson interval."""
    return {"value": float(hits.mean()), "interval": list(wilson(int(hits.sum()), len(hits)))}


def auroc(low: Floats, high: Floats) -> dict[str, Any]:
    """Probability that a score of `high` is above one of `low` (area under the ROC curve), with its 95 % interval.

    The interval is Newcombe's score interval (2006, Confidence intervals for an effect size measure based on the
    Mann-Whitney statistic, method 5): of use also where every score is above, as it often is.
    """
    from sklearn.metrics import (
        roc_auc_score,  # in functions: it takes a second, and most who import this need none of it
    )

    found = float(roc_auc_score(np.repeat([0, 1], [len(low), len(high)]), np.concatenate([low, high])))
    spare = (len(low) + len(high)) / 2 - 1

    def beyond(area: float) -> float:
        variance = area * (1 - area) * (1 + spare * ((1 - area) / (2 - area) + area / (1 + area)))
        return (found - area) ** 2 - QUANTILE_95**2 * variance / (len(low) * len(high))

    # At an area of exactly 0 or 1 that end of the interval is a root, and so is the other end, which is looked for.
    least = brentq(beyond, 0.0, min(found, 1 - ROOT)) if found > 0 else 0.0
    most = brentq(beyond, max(found, ROOT), 1.0) if found < 1 else 1.0
    return {"value": found, "interval": [least, most]}


def reliability(probs: Floats, labels: Labels) -> list[dict[str, Any]]:
    """What a reliability diagram shows (DeGroot and Fienberg 1983): for every bin of equal width that holds pictures,
    their mean confidence, the share that is right with its 95 % interval, and their number."""
    confidence, correct = probs.max(1), probs.argmax(1) == labels
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return [
        {
            "confidence": float(confidence[bins == b].mean()),
            "accuracy": float(correct[bins == b].mean()),
            "interval": list(wilson(int(correct[bins == b].sum()), int((bins == b).sum()))),
            "pictures": int((bins == b).sum()),
        }
        for b in np.unique(bins)
    ]


def calibration_error(probs: Floats, labels: Labels) -> float:
    """Expected calibration error in 15 bins of equal width (Naeini et al. 2015)."""
    bins = reliability(probs, labels)
    return float(sum(abs(b["confidence"] - b["accuracy"]) * b["pictures"] for b in bins) / len(labels))


def risk_threshold(probs: Floats, labels: Labels, risk: float) -> float:
    """The lowest confidence above which at most a share `risk` of the answers is wrong (selective classification,
    Geifman and El-Yaniv 2017); 1.0 when no confidence is enough, so that only certain answers are given."""
    confidence, wrong = probs.max(1), probs.argmax(1) != labels
    order = np.argsort(-confidence, kind="stable")
    risks = np.cumsum(wrong[order]) / np.arange(1, len(order) + 1)
    kept = np.flatnonzero(risks <= risk)
    return float(confidence[order][kept[-1]]) if len(kept) else 1.0


def roc_auc(probs: Floats, labels: Labels) -> float:
    """Area under the ROC curve; one class against the rest, averaged, where there are more than two."""
    from sklearn.metrics import roc_auc_score

    if probs.shape[1] == 2:
        return float(roc_auc_score(labels, probs[:, 1]))
    return float(roc_auc_score(labels, probs, multi_class="ovr", labels=np.arange(probs.shape[1])))


def confusions(labels: Labels, guesses: Labels, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """The pairs of classes that are confused most: how many pictures of one are taken for the other, and what share of
    its pictures that is. The larger count first, of equal ones the larger share."""
    wrong = labels != guesses
    pairs, counts = np.unique(np.stack([labels[wrong], guesses[wrong]], axis=1), axis=0, return_counts=True)
    shares = counts / np.bincount(labels, minlength=len(classes))[pairs[:, 0]]
    order = np.lexsort((-shares, -counts))[:CONFUSED]
    return [
        {"is": classes[label], "says": classes[guess], "pictures": int(count), "share": float(share)}
        for (label, guess), count, share in zip(pairs[order], counts[order], shares[order], strict=True)
    ]


def before_and_after(answers: Sequence[str], given: Sequence[str], audited: Sequence[str | None]) -> dict[str, Any]:
    """Accuracy of N answers on the labels that the source gave and on those that people corrected, side by side.

    `audited`: None for a picture that was dropped. Where people looked only at pictures on which a model doubted the
    label, a mistake that model and label share stays, and the second figure is the kinder one.
    """
    kept = np.array([label is not None for label in audited])
    said = np.array([answer == label for answer, label in zip(answers, audited, strict=True)])
    source = np.array([answer == label for answer, label in zip(answers, given, strict=True)])
    changed = [label is not None and label != former for label, former in zip(audited, given, strict=True)]
    return {
        "as_given": {"pictures": len(source), **share(source)},
        "audited": {"pictures": int(kept.sum()), **share(said[kept])},
        "relabelled": sum(changed),
        "dropped": int((~kept).sum()),
    }


def weak_classes(labels: Labels, guesses: Labels, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Classes on which the model is surely worse than on the average class: the 95 % interval of their recall ends
    below the balanced accuracy. Worst first, each with the class that it is most often taken for."""
    counts = np.bincount(labels, minlength=len(classes))
    hits = np.bincount(labels[labels == guesses], minlength=len(classes))
    known = np.flatnonzero(counts)
    balanced = float((hits[known] / counts[known]).mean())
    weak = []
    for label in known:
        interval = wilson(int(hits[label]), int(counts[label]))
        if interval[1] < balanced:
            answers = np.bincount(guesses[(labels == label) & (guesses != label)], minlength=len(classes))
            weak.append(
                {
                    "class": classes[label],
                    "recall": float(hits[label] / counts[label]),
                    "interval": list(interval),
                    "pictures": int(counts[label]),
                    "mistaken_for": classes[int(answers.argmax())],
                    "mistaken": int(answers.max()),
                }
            )
    return sorted(weak, key=lambda entry: entry["recall"])


def top_accuracy(probs: Floats, labels: Labels, top: int) -> float:
    """The share of pictures whose class is among the `top` most probable ones."""
    likelier = (probs > probs[np.arange(len(labels)), labels][:, None]).sum(axis=1)
    return float((likelier < top).mean())


def describe(probs: Floats, labels: Labels, classes: tuple[str, ...]) -> dict[str, Any]:
    """Accuracy with its interval, log-loss, ROC-AUC, calibration, confusions; precision, recall, F1 of every class.

    Balanced accuracy and macro F1 are means over the classes that have pictures, so that a rare class counts as much as
    a frequent one. Of more than `TOP` classes the accuracy of the best five answers too; the confusion matrix of few
    classes only.
    """
    from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support

    guesses = probs.argmax(1)
    correct = int((guesses == labels).sum())
    numbers = np.arange(len(classes))
    scores = precision_recall_fscore_support(labels, guesses, labels=numbers, zero_division=0.0)
    found = {
        "pictures": len(labels),
        "accuracy": correct / len(labels),
        "accuracy_interval": list(wilson(correct, len(labels))),
        "balanced_accuracy": float(scores[1][scores[3] > 0].mean()),
        "macro_f1": float(scores[2][scores[3] > 0].mean()),
        "log_loss": float(log_loss(labels, probs, labels=numbers)),
        "roc_auc": roc_auc(probs, labels),
        "calibration_error": calibration_error(probs, labels),
        "per_class": {
            name: {"precision": float(p), "recall": float(r), "f1": float(f), "pictures": int(n)}
            for name, p, r, f, n in zip(classes, *scores, strict=True)
        },
        "reliability": reliability(probs, labels),
        "confused": confusions(labels, guesses, classes),
        "weak_classes": weak_classes(labels, guesses, classes),
    }
    if len(classes) > TOP:
        found["top_5_accuracy"] = top_accuracy(probs, labels, TOP)
    if len(classes) <= MATRIX_CLASSES:
        found["confusion_matrix"] = confusion_matrix(labels, guesses, labels=numbers).tolist()
    return found
