"""How unlike the training pictures a picture is: its Mahalanobis distance in a subspace of the embedding.

Lee et al. 2018 (A Simple Unified Framework for Detecting Out-of-Distribution Samples), with class means, one shared
covariance, and only its strongest directions, so that a few hundred pictures are enough to estimate it. It is three
matrix products, so it travels inside the ONNX graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

DIRECTIONS = 64


@dataclass(frozen=True)
class Novelty:
    """`projection` [D, k] whitens the embedding, `centres` [classes, k] are the class means there."""

    projection: NDArray[np.float32]
    centres: NDArray[np.float32]

    @classmethod
    def fit(cls, embeddings: NDArray[np.float64], labels: NDArray[np.int64]) -> Novelty:
        """From the embeddings [N, D] of training pictures and their labels [N]."""
        means = np.stack([embeddings[labels == label].mean(0) for label in range(labels.max() + 1)])
        centred = embeddings - means[labels]
        _, strength, directions = np.linalg.svd(centred, full_matrices=False)
        kept = min(DIRECTIONS, int((strength > 1e-6 * strength[0]).sum()))
        scale = np.sqrt(len(embeddings)) / strength[:kept]
        projection = directions[:kept].T * scale
        return cls(projection.astype(np.float32), (means @ projection).astype(np.float32))

    def whitening(self, count: int) -> NDArray[np.float32]:
        """The `count` strongest directions [D, count], turned and scaled so that pictures of all classes together (in
        equal parts) spread by one standard deviation in each, and not only those of one class."""
        centres = self.centres[:, :count].astype(float)
        variances, turn = np.linalg.eigh(np.eye(centres.shape[1]) + np.atleast_2d(np.cov(centres.T, bias=True)))
        directions = self.projection[:, :count] @ (turn / np.sqrt(variances))
        return np.asarray(directions, np.float32)

    def score(self, embeddings: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance [N] to the nearest class centre, in standard deviations per direction."""
        module = NoveltyModule(self)
        scores: NDArray[np.float64] = module(torch.from_numpy(embeddings).float()).numpy().astype(float)
        return scores


class NoveltyModule(nn.Module):
    """The same as a part of the network: embeddings [N, D] -> novelty [N]."""

    projection: Tensor
    centres: Tensor

    def __init__(self, novelty: Novelty) -> None:
        super().__init__()
        self.register_buffer("projection", torch.from_numpy(novelty.projection))
        self.register_buffer("centres", torch.from_numpy(novelty.centres))

    def forward(self, embeddings: Tensor) -> Tensor:
        there = embeddings @ self.projection
        squared = (there[:, None, :] - self.centres[None]).square().mean(2)
        distance: Tensor = squared.min(1).values.sqrt()
        return distance
