"""The trained network, and its convolutional part as the ONNX graph that is evaluated and then shipped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from training.common.errors import ExpectedError
from training.fit.architectures import Classifier, Trunk, build
from training.fit.forward import Network, onnx_bytes, run_batches, runner
from training.fit.outputs import SUMMARY_FILE, WEIGHTS_FILE
from training.model.preprocess import Preprocessing

FEATURES = "features"

Floats = NDArray[np.float64]


class EvaluationError(ExpectedError):
    """There are no weights to judge, or they do not fit the data."""


@dataclass(frozen=True)
class Outputs:
    """What the network says about N pictures: logits [N, classes], embeddings [N, D].

    Where a first look answers some of them (training.evaluation.shortcuts.glance): `novelty` [N], and which are `easy`.
    """

    logits: Floats
    embeddings: Floats
    novelty: Floats | None = None
    easy: NDArray[np.bool_] | None = None

    @property
    def answers(self) -> NDArray[np.int64]:
        return np.asarray(self.logits.argmax(1))

    @classmethod
    def joined(cls, parts: Sequence[Outputs]) -> Outputs:
        """Those of all parts, one after the other."""
        novelty = [part.novelty for part in parts if part.novelty is not None]
        easy = [part.easy for part in parts if part.easy is not None]
        return cls(
            np.concatenate([part.logits for part in parts]),
            np.concatenate([part.embeddings for part in parts]),
            np.concatenate(novelty) if novelty else None,
            np.concatenate(easy) if easy else None,
        )

    def where(self, mask: NDArray[np.bool_]) -> Outputs:
        """Those of the pictures that `mask` [N] marks."""
        return Outputs(
            self.logits[mask],
            self.embeddings[mask],
            None if self.novelty is None else self.novelty[mask],
            None if self.easy is None else self.easy[mask],
        )


class Shrunk(nn.Module):
    """Pictures [N, 3, H, W] made smaller: [N, 3, side, side]."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return functional.interpolate(pictures, (self.side, self.side), mode="bilinear")  # antialias: no ONNX


@dataclass(frozen=True)
class Trained:
    """The weights of `train` in their architecture, ready to judge."""

    model: Classifier
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    architecture: str
    enlarges: bool  # most of its training pictures were smaller than its input
    head: dict[str, Any] | None = None  # how a solved head was chosen (training.fit.choice)

    @classmethod
    def load(cls) -> Trained:
        """Raises EvaluationError when there are no weights."""
        if not (SUMMARY_FILE.is_file() and WEIGHTS_FILE.is_file()):
            raise EvaluationError(f"{WEIGHTS_FILE} is missing: run `dvc repro train` (or `make run`) first")
        summary = json.loads(SUMMARY_FILE.read_text())
        classes, how = tuple(summary["classes"]), Preprocessing(**summary["preprocessing"])
        model = build(summary["architecture"], None, len(classes))
        model.use(tuple(summary["levels"]), how.size)
        model.load_state_dict(torch.load(WEIGHTS_FILE, weights_only=True))
        enlarges = summary["recipe"]["enlarges"]
        return cls(model.eval(), classes, how, summary["architecture"], enlarges, summary["head"])

    @property
    def views(self) -> tuple[str, ...] | None:
        """What a solved head learned from, as cross-validation chose; None: no such choice."""
        return tuple(self.head["candidate"]["views"]) if self.head else None

    def backbone(self, side: int | None = None) -> bytes:
        """Everything before the pooling as ONNX: image uint8 [N, size, size, 3] -> features float32 [N, D, h, w].

        `side`: of the picture as the network sees it, if that is smaller.
        """
        trunk: nn.Module = Trunk(self.model.backbone, self.model.levels)
        network = Network(self.model.normalise, trunk if side is None else nn.Sequential(Shrunk(side), trunk))
        return onnx_bytes(network, self.preprocessing.size, [FEATURES])

    def outputs(self, backbone: bytes, pictures: NDArray[np.uint8], title: str) -> Outputs:
        """Outputs for `pictures` uint8 [N, size, size, 3], their features computed by `backbone` on all cores."""

        def read(rows: slice) -> NDArray[np.uint8]:
            return np.ascontiguousarray(pictures[rows])

        parts = run_batches(runner(backbone), read, len(pictures), title)
        embeddings = np.concatenate([features.mean((2, 3)) for _, features in parts])
        with torch.inference_mode():
            logits = self.model.head(torch.from_numpy(embeddings)).numpy()
        return Outputs(logits.astype(float), embeddings.astype(float))
