"""The head: multinomial logistic regression on standardised features, solved to convergence (L-BFGS, Liu and Nocedal
1989).

A convex problem with one answer: no epochs, no learning rate. Several folds over the same rows are solved together, as
one problem whose parts do not touch. Turning features into their principal directions first saved a third of the steps
at best, and cost more than that; only where there are fewer pictures than features it pays.

Pictures of nothing (training.fit.nothing) keep it from being sure of what it has never seen. They widen the spread by
which a feature is divided, so that one which leaps on noise weighs little, and they are rows whose right answer is
every class alike (outlier exposure: Hendrycks et al. 2019).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional

BLOCK = 4096  # rows at a time, so that memory does not grow with rows times classes
CONSTANT = 1e-7  # a feature that varies by less than this share of the one that varies most is left as it is
MEMORY = 8  # steps that L-BFGS remembers: each takes the room of the weights twice
WIDENED, EXPOSED = 0.03, 0.1  # weight of all pictures of nothing, to all pictures: in the spread, in the loss
SMALL = 2**25  # products in one step, some milliseconds of one core
FINE = 2**27  # standardised features at most that are held in single precision

Features = NDArray[np.floating[Any]]  # features, float16 as they are cached


@dataclass(frozen=True)
class Heads:
    """Linear layers on features as they come, the standardiser folded in: weight [P, D, K], bias [P, K]."""

    weight: Tensor
    bias: Tensor

    def logits(self, features: Features) -> Tensor:
        """Of features [N, D] by each of the P heads: [P, N, K]."""
        return torch.from_numpy(np.array(features, np.float32)) @ self.weight + self.bias[:, None]


class Rows:
    """Standardised features of labelled pictures (labels [N], of `classes`).

    `features`: arrays [N, D], one for each view of the pictures, maybe mapped from disk; the rows of one follow those
    of the other. `columns`: which of the D features are used. `nothing`: features [J, D] of pictures without a label.
    """

    def __init__(
        self,
        features: Sequence[Features],
        columns: NDArray[np.int64],
        labels: NDArray[np.int64],
        classes: int,
        nothing: Features | None = None,
    ) -> None:
        self.features, self.columns = features, columns
        self.labels = torch.from_numpy(np.tile(labels, len(features)))
        self.classes = classes
        count = len(self.labels)
        self.mean = sum(block.sum(0, dtype=np.float64) for block in self._blocks()) / count
        variance = sum(np.square(block - self.mean).sum(0) for block in self._blocks()) / count
        away = None if nothing is None else nothing[:, columns] - self.mean
        wide = variance if away is None else variance + WIDENED * np.square(away).mean(0)
        varies = wide > CONSTANT**2 * wide.max()
        spread = np.sqrt(np.where(varies, wide, 1))
        # As long as standardised ones on the whole, so that a strength means the same with and without `nothing`.
        scale = np.sqrt((variance[varies] / wide[varies]).mean()) if varies.any() else 1.0
        self.spread = np.where(varies, spread * scale, 1)
        self.rows = torch.empty(count, len(columns), dtype=torch.float if count * len(columns) <= FINE else torch.half)
        for rows, block in zip(self.blocks(), self._blocks(), strict=True):
            self.rows[rows] = self._standardised(block - self.mean)
        self.nothing = None if away is None else self._standardised(away)
        self.basis = self._turned() if count + (0 if away is None else len(away)) < len(columns) else None

    def _turned(self) -> Tensor:
        """Turn rows that are fewer than features into the space that they span; its basis [D, n], double.

        The weights lie in it too: what stands at right angles to every row changes no answer and costs strength
        (representer theorem). The problem is the same, with n in place of D features.
        """
        rows = self.rows.float() if self.nothing is None else torch.cat([self.rows.float(), self.nothing])
        basis: Tensor
        basis, triangle = torch.linalg.qr(rows.double().T)
        turned = triangle.T.float()
        if self.nothing is not None:
            self.nothing = turned[len(self.rows) :]
        self.rows = turned[: len(self.rows)]
        return basis

    def _standardised(self, moved: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(moved / self.spread).float()

    def blocks(self) -> Iterator[slice]:
        """Slices of all rows, a block in each."""
        for start in range(0, len(self.labels), len(self.features[0])):
            for place in range(0, len(self.features[0]), BLOCK):
                yield slice(start + place, start + min(place + BLOCK, len(self.features[0])))

    def _blocks(self) -> Iterator[Features]:
        for view in self.features:
            for place in range(0, len(view), BLOCK):
                yield view[place : place + BLOCK][:, self.columns]


class Solver:
    """Fits P heads, each on the rows that `masks` bool [N, P] marks.

    Strengths are best tried from strong to weak, since each fit starts where the one before it ended.
    """

    def __init__(self, rows: Rows, masks: NDArray[np.bool_]) -> None:
        self.rows = rows
        weights = torch.from_numpy(masks.astype(np.float32))
        self.shares = weights / weights.sum(0)
        self.started: Tensor | None = None

    def fit(self, strength: float, tolerance: float = 1e-5, steps: int = 500) -> Heads:
        """The heads that minimise mean cross-entropy + strength / 2 * squared weights (of standardised features).

        Pictures of nothing add EXPOSED times their own mean cross-entropy. `tolerance`: the largest entry of the
        gradient at the end.
        """
        rows, heads, classes = self.rows, self.shares.shape[1], self.rows.classes
        shape = (rows.rows.shape[1] + 1, heads * classes)

        def loss_and_gradient(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            given = torch.from_numpy(flat.astype(np.float32)).view(shape)
            weights = given[:-1]
            loss = 0.5 * strength * weights.double().square().sum().item()
            gradient = torch.zeros(shape)
            for block in (*rows.blocks(), None):
                part = rows.nothing if block is None else rows.rows[block].float()
                if part is None:
                    continue
                logits = torch.addmm(given[-1], part, weights).view(len(part), heads, classes)
                found, slope = _of_nothing(logits) if block is None else self._loss(logits, block)
                loss += found
                gradient[:-1] += part.T @ slope
                gradient[-1] += slope.sum(0)
            gradient[:-1] += strength * weights
            return loss, gradient.double().numpy().ravel()

        start = torch.zeros(shape) if self.started is None else self.started
        options = {"maxiter": steps, "maxfun": 2 * steps, "gtol": tolerance, "ftol": 1e-10, "maxcor": MEMORY}
        with _threads(rows.rows.numel() * shape[1]):
            found = minimize(
                loss_and_gradient, start.double().numpy().ravel(), jac=True, method="L-BFGS-B", options=options
            )
        solution = torch.from_numpy(found.x.astype(np.float32)).view(shape)
        self.started = solution
        return self._folded(solution)

    def _loss(self, logits: Tensor, block: slice) -> tuple[float, Tensor]:
        """Cross-entropy of logits [n, P, K] and its slope [n, P * K]."""
        labels, shares = self.rows.labels[block], self.shares[block]
        logs = functional.log_softmax(logits, 2)
        right = logs.gather(2, labels.view(-1, 1, 1).expand(-1, logits.shape[1], 1)).squeeze(2)
        slope = logs.exp_()
        slope.scatter_add_(2, labels.view(-1, 1, 1).expand(-1, logits.shape[1], 1), -torch.ones_like(slope[..., :1]))
        slope *= shares[:, :, None]
        return -(right * shares).double().sum().item(), slope.flatten(1)

    def _folded(self, solution: Tensor) -> Heads:
        rows = self.rows
        flat = solution[:-1].double()
        weight = (flat if rows.basis is None else rows.basis @ flat) / torch.from_numpy(rows.spread)[:, None]
        bias = solution[-1] - torch.from_numpy(rows.mean) @ weight
        heads = self.shares.shape[1]
        by_head = weight.view(len(weight), heads, rows.classes).permute(1, 0, 2).contiguous()
        return Heads(by_head.float(), bias.view(heads, rows.classes).float())


@contextmanager
def _threads(products: int) -> Iterator[None]:
    """L-BFGS's own small matrices get one thread, and torch too where a step has few products to compute: there threads
    wait for each other longer than they compute (60 s in place of 10 for 80 pictures on two cores)."""
    before = torch.get_num_threads()
    if products < SMALL:
        torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def _of_nothing(logits: Tensor) -> tuple[float, Tensor]:
    """Cross-entropy of logits [J, P, K] with every class alike, and its slope [J, P * K]."""
    share = EXPOSED / len(logits)
    logs = functional.log_softmax(logits, 2)
    loss = -share * logs.mean(2).double().sum().item()
    return loss, (share * (logs.exp() - 1 / logits.shape[2])).flatten(1)
