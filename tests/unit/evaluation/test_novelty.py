"""The distance, and that the module inside the network gives the same one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.evaluation.novelty import DIRECTIONS, Novelty, NoveltyModule

pytestmark = pytest.mark.torch


def embeddings(count: int, seed: int, unlike: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Two classes that vary in 20 of 100 directions, with a little noise, or much of it, in the others."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    centres = np.array([[1.0] * 100, [3.0] * 100])
    strength = np.where(np.arange(100) < 20, 1.0, 0.05 + unlike)
    return centres[labels] + random.normal(0, strength, (count, 100)), labels


def test_familiar_pictures_are_explained_and_others_are_not() -> None:
    novelty = Novelty.fit(*embeddings(2000, seed=0))
    assert novelty.basis.shape == (100, DIRECTIONS + 1)
    familiar = novelty.score(embeddings(300, seed=1)[0])
    strange = novelty.score(embeddings(300, seed=2, unlike=1.0)[0])
    assert np.quantile(familiar, 0.99) < np.quantile(strange, 0.01)


def test_whitened_pictures_of_all_classes_spread_alike() -> None:
    pictures, labels = embeddings(2000, seed=0)
    sketches = pictures @ Novelty.fit(pictures, labels).whitening(8)
    np.testing.assert_allclose(np.cov(sketches.T), np.eye(8), atol=0.01)


def test_the_basis_is_orthonormal_and_holds_the_difference_of_the_classes() -> None:
    there, labels = embeddings(500, seed=0)
    novelty = Novelty.fit(there, labels)
    np.testing.assert_allclose(novelty.basis.T @ novelty.basis, np.eye(DIRECTIONS + 1), atol=1e-5)
    between = there[labels == 1].mean(0) - there[labels == 0].mean(0)
    np.testing.assert_allclose(novelty.basis @ (novelty.basis.T @ between), between, rtol=1e-4)


def test_brightness_of_the_embedding_alone_is_not_novel() -> None:
    novelty = Novelty.fit(*embeddings(2000, seed=0))
    there = embeddings(50, seed=1)[0]
    assert (novelty.score(1.2 * there) < 1.5 * novelty.score(there)).all()


def test_the_projection_whitens_within_a_class() -> None:
    there, labels = embeddings(2000, seed=0)
    novelty = Novelty.fit(there, labels)
    seen = there[labels == 0] @ novelty.projection
    assert seen.shape == (1000, DIRECTIONS)
    np.testing.assert_allclose(seen.std(0), 1, atol=0.15)


def test_the_module_and_the_score_agree() -> None:
    novelty = Novelty.fit(*embeddings(200, seed=0))
    there = embeddings(20, seed=3)[0]
    module = NoveltyModule(novelty)(torch.from_numpy(there).float()).numpy()
    np.testing.assert_allclose(module, novelty.score(there), rtol=1e-6)
    assert (module <= 1).all()


def test_fewer_pictures_than_directions_are_enough() -> None:
    novelty = Novelty.fit(*embeddings(12, seed=0))
    assert np.isfinite(novelty.score(embeddings(5, seed=1)[0])).all()


def test_an_embedding_of_zeros_has_a_novelty() -> None:
    novelty = Novelty.fit(*embeddings(200, seed=0))
    assert np.isfinite(novelty.score(np.zeros((1, 100)))).all()
