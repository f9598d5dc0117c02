"""The solver against scikit-learn's, on problems small enough for both."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from training.fit.head import Heads, Rows, Solver

pytestmark = pytest.mark.torch


def problem(count: int, width: int, classes: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features on very different scales, and labels that they tell with some noise."""
    random = np.random.default_rng(0)
    features = random.normal(0, 1, (count, width))
    labels = (features[:, :classes] + random.normal(0, 0.7, (count, classes))).argmax(1)
    scales = np.geomspace(0.01, 100, width)
    return (features * scales + 3 * scales).astype(np.float32), labels


def solved(features: NDArray[np.float32], labels: NDArray[np.int64], strength: float) -> Heads:
    rows = Rows([features], np.arange(features.shape[1]), labels, int(labels.max()) + 1)
    return Solver(rows, np.ones((len(labels), 1), bool)).fit(strength)


@pytest.mark.parametrize(("count", "width"), [(300, 8), (40, 60)])
@pytest.mark.parametrize("strength", [1.0, 0.01])
def test_it_is_scikit_learns_answer(count: int, width: int, strength: float) -> None:
    features, labels = problem(count, width, 4)
    scaled = StandardScaler().fit(features.astype(float))
    peer = LogisticRegression(C=1 / (strength * count), tol=1e-8, max_iter=5000)
    peer.fit(scaled.transform(features.astype(float)), labels)
    logits = solved(features, labels, strength).logits(features)[0].numpy()
    expected = peer.decision_function(scaled.transform(features.astype(float)))
    np.testing.assert_allclose(logits - logits.mean(1, keepdims=True), expected, atol=5e-3)


def test_folds_solved_together_are_those_solved_alone() -> None:
    features, labels = problem(120, 8, 3)
    rows = Rows([features], np.arange(8), labels, 3)
    masks = np.arange(120)[:, None] % 3 != np.arange(3)
    together = Solver(rows, masks).fit(0.05)
    for fold in range(3):
        alone = Solver(rows, masks[:, fold : fold + 1]).fit(0.05)
        torch.testing.assert_close(together.weight[fold], alone.weight[0], rtol=1e-2, atol=1e-3)


def test_a_start_elsewhere_ends_at_the_same_place() -> None:
    features, labels = problem(120, 8, 3)
    solver = Solver(Rows([features], np.arange(8), labels, 3), np.ones((120, 1), bool))
    solver.fit(3.0)
    warm, cold = solver.fit(0.05), solved(features, labels, 0.05)
    torch.testing.assert_close(warm.logits(features), cold.logits(features), rtol=1e-2, atol=1e-3)


def test_views_are_more_rows_and_columns_a_choice() -> None:
    features, labels = problem(60, 8, 3)
    columns = np.array([0, 1, 2, 7])
    two = Rows([features, features + 1], columns, labels, 3)
    one = Rows([np.concatenate([features, features + 1])[:, columns]], np.arange(4), np.tile(labels, 2), 3)
    heads = [Solver(rows, np.ones((120, 1), bool)).fit(0.1) for rows in (two, one)]
    torch.testing.assert_close(heads[0].weight, heads[1].weight, rtol=1e-3, atol=1e-4)


def test_a_feature_that_never_changes_is_harmless() -> None:
    features, labels = problem(60, 5, 3)
    features[:, 4] = 7.0
    found = solved(features, labels, 0.1)
    assert torch.isfinite(found.weight).all()
    assert found.weight[0, 4].abs().max() < 1e-6


def test_the_same_answer_each_time() -> None:
    features, labels = problem(120, 8, 3)
    assert torch.equal(solved(features, labels, 0.01).weight, solved(features, labels, 0.01).weight)


def test_a_feature_that_leaps_on_pictures_of_nothing_weighs_little() -> None:
    features, labels = problem(300, 8, 2)
    features[:, 1] = features[:, 0]  # as telling, by turns
    nothing = np.tile(features.mean(0), (10, 1))
    nothing[:, 0] += 30 * features[:, 0].std()
    rows = Rows([features], np.arange(8), labels, 2, nothing)
    head = Solver(rows, np.ones((300, 1), bool)).fit(0.1)
    weights = head.weight[0].abs().sum(1)
    assert weights[0] < weights[1] / 10
    plain = solved(features, labels, 0.1)
    sure = [torch.softmax(one.logits(nothing)[0], 1).amax() for one in (plain, head)]
    assert sure[0] > 0.99
    assert sure[1] < 0.75
