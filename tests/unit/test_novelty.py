"""The distance, and that the module inside the network gives the same one."""

from __future__ import annotations

import numpy as np
import torch

from training.novelty import DIRECTIONS, Novelty, NoveltyModule


def embeddings(count: int, seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    centres = np.array([[0.0] * 100, [3.0] * 100])
    return centres[labels] + random.normal(0, 1, (count, 100)) + shift, labels


def test_familiar_pictures_are_one_standard_deviation_away() -> None:
    novelty = Novelty.fit(*embeddings(2000, seed=0))
    assert novelty.projection.shape == (100, DIRECTIONS)
    assert abs(novelty.score(embeddings(500, seed=1)[0]).mean() - 1) < 0.1


def test_other_pictures_are_farther_away() -> None:
    novelty = Novelty.fit(*embeddings(2000, seed=0))
    familiar = novelty.score(embeddings(300, seed=1)[0])
    strange = novelty.score(np.random.default_rng(2).normal(0, 4, (300, 100)))
    assert np.quantile(familiar, 0.99) < np.quantile(strange, 0.01)


def test_whitened_pictures_of_all_classes_spread_alike() -> None:
    pictures, labels = embeddings(2000, seed=0)
    sketches = pictures @ Novelty.fit(pictures, labels).whitening(8)
    np.testing.assert_allclose(np.cov(sketches.T), np.eye(8), atol=0.01)


def test_the_module_and_the_score_agree() -> None:
    novelty = Novelty.fit(*embeddings(200, seed=0))
    there = embeddings(20, seed=3)[0]
    module = NoveltyModule(novelty)(torch.from_numpy(there).float()).numpy()
    np.testing.assert_allclose(module, novelty.score(there), rtol=1e-6)


def test_fewer_pictures_than_directions_are_enough() -> None:
    novelty = Novelty.fit(*embeddings(12, seed=0))
    assert np.isfinite(novelty.score(embeddings(5, seed=1)[0])).all()
