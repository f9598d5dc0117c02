"""Figures against hand-worked or independently computed values."""

from __future__ import annotations

import numpy as np
import pytest

from training.common.intervals import wilson
from training.evaluation import metrics


def confident(labels: np.ndarray, sure: float, flip: np.ndarray) -> np.ndarray:
    """Two-class probabilities that give `sure` to the label, or to the other class where `flip`."""
    right = np.where(flip, 1 - sure, sure)
    first = np.where(labels == 0, right, 1 - right)
    return np.stack([first, 1 - first], axis=1)


def test_temperature_keeps_the_order_of_the_answers() -> None:
    logits = np.random.default_rng(1).normal(size=(50, 4))
    cold, hot = metrics.probabilities(logits, 0.5), metrics.probabilities(logits, 5.0)
    assert (cold.argmax(1) == hot.argmax(1)).all()
    assert cold.max(1).mean() > hot.max(1).mean()


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    labels = np.zeros(100, dtype=np.int64)
    flip = np.arange(100) < 30  # 70 % right
    assert metrics.calibration_error(confident(labels, 0.9, flip), labels) == pytest.approx(0.2)
    assert metrics.calibration_error(confident(labels, 0.7, flip), labels) == pytest.approx(0.0, abs=1e-9)


def test_reliability_tells_every_bin_that_holds_pictures() -> None:
    labels = np.zeros(10, dtype=np.int64)
    probs = np.concatenate(
        [confident(labels[:6], 0.95, np.arange(6) < 1), confident(labels[:4], 0.7, np.arange(4) < 2)]
    )
    low, high = metrics.reliability(probs, labels)
    assert (low["confidence"], low["accuracy"], low["pictures"]) == pytest.approx((0.7, 0.5, 4))
    assert (high["confidence"], high["accuracy"], high["pictures"]) == pytest.approx((0.95, 5 / 6, 6))
    assert high["interval"] == list(wilson(5, 6))
    gap = (4 * 0.2 + 6 * (0.95 - 5 / 6)) / 10
    assert metrics.calibration_error(probs, labels) == pytest.approx(gap)


def test_risk_threshold_keeps_the_wrong_answers_out() -> None:
    probs = np.array([[0.99, 0.01], [0.95, 0.05], [0.90, 0.10], [0.60, 0.40]])
    labels = np.array([0, 0, 1, 0])
    assert metrics.risk_threshold(probs, labels, 0.01) == 0.95
    assert metrics.risk_threshold(probs, labels, 0.5) == 0.6
    assert metrics.risk_threshold(probs[2:3], labels[2:3], 0.01) == 1.0


def test_describe_agrees_with_its_parts() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    probs = np.eye(3)[[0, 0, 1, 1, 1, 2]] * 0.8 + 0.2 / 3
    found = metrics.describe(probs, labels, ("a", "b", "c"))
    assert found["accuracy"] == pytest.approx(5 / 6)
    assert found["confusion_matrix"] == [[2, 1, 0], [0, 2, 0], [0, 0, 1]]
    assert found["confused"] == [{"is": "a", "says": "b", "pictures": 1, "share": pytest.approx(1 / 3)}]
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert found["macro_f1"] == pytest.approx((0.8 + 0.8 + 1) / 3)
    assert "top_5_accuracy" not in found
    assert found["per_class"]["b"] == pytest.approx({"precision": 2 / 3, "recall": 1.0, "f1": 0.8, "pictures": 2})
    low, high = found["accuracy_interval"]
    assert low < found["accuracy"] < high
    assert 0.9 < found["roc_auc"] <= 1.0


def test_a_weak_class_is_surely_below_the_average_one_and_has_its_mistake() -> None:
    labels = np.repeat([0, 1, 2], [100, 100, 3])  # three pictures of c are too few to call it weak
    guesses = np.repeat([0, 1, 2, 0, 1, 2, 1, 2], [97, 1, 2, 60, 35, 5, 1, 2])
    (weak,) = metrics.weak_classes(labels, guesses, ("a", "b", "c"))
    assert (weak["class"], weak["recall"], weak["pictures"]) == ("b", 0.35, 100)
    assert (weak["mistaken_for"], weak["mistaken"]) == ("a", 60)
    assert weak["interval"] == list(wilson(35, 100))
    assert metrics.weak_classes(np.array([0, 1]), np.array([1, 1]), ("a", "b")) == []


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    low, high = np.array([1.0, 2.0, 3.0]), np.array([2.5, 4.0])
    found = metrics.auroc(low, high)
    assert found["value"] == pytest.approx(5 / 6)
    assert found["interval"][0] < 5 / 6 < found["interval"][1]


def test_the_interval_of_a_perfect_auroc_is_not_empty() -> None:
    above = metrics.auroc(np.zeros(100), np.ones(20))
    assert above["value"] == 1
    assert 0.8 < above["interval"][0] < 1
    assert above["interval"][1] == 1
    assert metrics.auroc(np.ones(100), np.zeros(20))["interval"][0] == 0


@pytest.mark.slow
def test_the_interval_of_an_auroc_covers_it_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    true = 0.9214  # of normal scores two standard deviations apart
    drawn = [metrics.auroc(random.normal(0, 1, 60), random.normal(2, 1, 30))["interval"] for _ in range(300)]
    assert np.mean([low <= true <= high for low, high in drawn]) > 0.92


def test_a_share_has_its_interval() -> None:
    found = metrics.share(np.array([True] * 9 + [False]))
    assert found["value"] == 0.9
    assert found["interval"] == list(wilson(9, 10))


def test_many_classes_have_pairs_instead_of_a_matrix() -> None:
    classes = tuple(f"class {number}" for number in range(60))
    labels = np.repeat(np.arange(60), 4)
    guesses = labels.copy()
    guesses[[0, 1, 4, 8, 9, 10]] = [7, 7, 7, 5, 5, 6]  # of class 0 two, of class 1 one, of class 2 three
    probs = np.eye(60)[guesses] * 0.5 + 0.5 / 60
    found = metrics.describe(probs, labels, classes)
    assert "confusion_matrix" not in found
    pairs = [(one["is"], one["says"], one["pictures"], one["share"]) for one in found["confused"]]
    assert pairs == [
        ("class 0", "class 7", 2, 0.5),
        ("class 2", "class 5", 2, 0.5),
        ("class 1", "class 7", 1, 0.25),
        ("class 2", "class 6", 1, 0.25),
    ]
    assert found["top_5_accuracy"] >= found["accuracy"] == pytest.approx(234 / 240)


def test_top_accuracy_counts_the_likeliest() -> None:
    probs = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
    found = [metrics.top_accuracy(probs, np.array([0, 1, 2]), top) for top in (1, 2, 3)]
    assert found == pytest.approx([1 / 3, 2 / 3, 1])


def test_accuracy_as_given_and_as_audited() -> None:
    found = metrics.before_and_after(
        ["cat", "dog", "dog", "cat"], ["cat", "cat", "dog", "dog"], ["cat", "dog", "dog", None]
    )
    assert (found["as_given"]["pictures"], found["as_given"]["value"]) == (4, 0.5)
    assert (found["audited"]["pictures"], found["audited"]["value"]) == (3, 1.0)
    assert (found["relabelled"], found["dropped"]) == (1, 1)
