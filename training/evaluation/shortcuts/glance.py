"""A first look at about half the side, which answers easy pictures by itself; the whole network sees the others.

A cascade of two classifiers (Wang et al. 2017, IDK Cascades) of one frozen backbone. Measured on 1,000 photographs of
cats and dogs: 88 % are answered at 128 x 128 pixels, at 0.39 of the whole network's time. Early exits do not pay:
behind the ninth of 18 blocks, after 0.56 of the time, 15 % are answered. tests/load/results/glance.md has the figures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from training.evaluation import metrics
from training.evaluation.calibration import Calibration
from training.evaluation.novelty import Novelty
from training.evaluation.trained import Outputs, Trained
from training.fit import nothing
from training.fit.choice import TOLERANCE
from training.fit.forward import run_batches, runner
from training.fit.head import Heads, Rows, Solver
from training.fit.temperature import fit_temperature

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Pictures = NDArray[np.uint8]

FOLDS = 5
WRONG = 0.001  # share of the training pictures that a look, which has not learned from them, may answer wrong
FAMILIAR = 0.99  # share of validation pictures that may look familiar: the others are left to the whole network


@dataclass(frozen=True)
class Look:
    """What the first look needs: a backbone in ONNX (image uint8 [N, size, size, 3] -> features [N, D, h, w]) and a
    head (weight [D, K], bias [K]) with its temperature. It answers from `confidence` on, up to a novelty of `limit`."""

    backbone: bytes
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    temperature: float
    confidence: float
    novelty: Novelty
    limit: float

    @classmethod
    def fit(
        cls, backbone: bytes, strength: float, train: tuple[Pictures, Labels], validation: Pictures, seed: int
    ) -> Look | None:
        """From training pictures, each judged by a head that has not learned from it; None when none can be answered.

        `strength`: of the whole network's head.
        """
        pictures, labels = train
        embeddings = pooled(backbone, pictures, "glances")
        size, classes = pictures.shape[1], int(labels.max()) + 1
        blank = pooled(backbone, nothing.pictures(size), "glances at nothing")
        solver, masks = _solver(embeddings, labels, classes, blank, seed)
        heads = solver.fit(strength, TOLERANCE)
        logits = _held_out(heads, embeddings, masks)
        temperature = fit_temperature(logits, labels)
        probabilities = metrics.probabilities(logits, temperature)
        confidence = sure(probabilities, probabilities.argmax(1) != labels)
        if confidence is None:
            return None
        novelty = Novelty.fit(embeddings, labels)
        limit = np.quantile(novelty.score(pooled(backbone, validation, "glances")), FAMILIAR)
        weight, bias = heads.weight[-1].numpy(), heads.bias[-1].numpy()
        return cls(backbone, weight, bias, temperature, confidence, novelty, float(limit))

    def merged(self, whole: Outputs, calibration: Calibration, pictures: Pictures, title: str) -> Outputs:
        """What the two say together: `whole` are the outputs of the whole network for the same pictures.

        Logits of the look are on the whole network's temperature, and its novelty is on the other's scale: both reach
        their limits together.
        """
        logits, embeddings, confidence, novelty = self._seen(pictures, f"{title}, at a glance")
        answered = (confidence >= self.confidence) & (novelty <= self.limit)
        return Outputs(
            np.where(answered[:, None], logits * (calibration.temperature / self.temperature), whole.logits),
            np.where(answered[:, None], embeddings, whole.embeddings),
            np.where(answered, novelty * self.scale(calibration), calibration.strangeness(whole)),
            answered,
        )

    def _seen(self, pictures: Pictures, title: str) -> tuple[Floats, Floats, Floats, Floats]:
        """Logits, embeddings, confidence and novelty of `pictures`."""
        embeddings = pooled(self.backbone, pictures, title)
        logits = embeddings @ self.weight + self.bias
        confidence = metrics.probabilities(logits, self.temperature).max(1)
        return logits, embeddings, confidence, self.novelty.score(embeddings)

    def firmness(self, pictures: Pictures) -> Floats:
        """How far [N] each picture is from being left to the other of the two. Near 0 another processor, which rounds
        otherwise, may decide otherwise."""
        _, _, confidence, novelty = self._seen(pictures, "firmness")
        by_confidence, by_novelty = confidence - self.confidence, 1 - novelty / max(self.limit, 1e-12)
        both = np.minimum(by_confidence, by_novelty)
        return np.where(both >= 0, both, -both)

    def scale(self, calibration: Calibration) -> float:
        """From novelty as the look measures it to novelty as the whole network does."""
        return calibration.novelty_threshold / max(self.limit, 1e-12)

    @staticmethod
    def save(look: Look | None, path: Path) -> None:
        """A file without arrays stands for none."""
        if look is None:
            np.savez(path)
            return
        numbers = {name: getattr(look, name) for name in ("weight", "bias", "temperature", "confidence", "limit")}
        np.savez(path, backbone=np.frombuffer(look.backbone, np.uint8), **numbers, **vars(look.novelty))

    @classmethod
    def load(cls, path: Path) -> Look | None:
        with np.load(path) as stored:
            if not stored.files:
                return None
            novelty = Novelty(*(stored[name] for name in ("centre", "basis", "projection", "centres")))
            numbers = {name: float(stored[name]) for name in ("temperature", "confidence", "limit")}
            return cls(stored["backbone"].tobytes(), stored["weight"], stored["bias"], novelty=novelty, **numbers)


def side(trained: Trained) -> int | None:
    """The side of the picture at which a look sees it: about half, and all levels of the feature map fit together.

    None where there is no look: of a backbone that learned from the training pictures nobody can say on these pictures
    how sure a look may be.
    """
    head, size = trained.head, trained.preprocessing.size
    if head is None or (head.get("finetuning") or {}).get("won"):
        return None
    last = trained.model.sides(size)[max(trained.model.levels)][1]
    smaller = size // last * math.ceil(last / 2)
    fits = size % last == 0 and smaller < size and set(trained.model.levels) <= set(trained.model.sides(smaller))
    return smaller if fits else None


def pooled(backbone: bytes, pictures: Pictures, title: str) -> Floats:
    """Average [N, D] of the features of each picture."""

    def read(rows: slice) -> Pictures:
        return np.ascontiguousarray(pictures[rows])

    parts = run_batches(runner(backbone), read, len(pictures), title)
    return np.concatenate([features.mean((2, 3)) for _, features in parts]).astype(float)


def sure(probabilities: Floats, wrong: NDArray[np.bool_]) -> float | None:
    """The lowest confidence above which at most the share WRONG of all pictures is answered wrong, if there is one."""
    confidence = probabilities.max(1)
    order = np.argsort(-confidence, kind="stable")
    kept = np.flatnonzero(np.cumsum(wrong[order]) <= WRONG * len(wrong))
    if not len(kept):
        return None
    least = float(confidence[order][kept[-1]])
    # Of pictures that are equally sure all are answered or none: a wrong one among them counts.
    above = confidence >= least
    return least if wrong[above].sum() <= WRONG * len(wrong) else float(np.nextafter(least, 2))


def gain(times: float, answered: float) -> float:
    """How many times as fast the two together are, where the look is `times` as fast as the whole network and answers
    the share `answered`."""
    return 1 / (1 / times + 1 - answered)


def _solver(
    embeddings: Floats, labels: Labels, classes: int, blank: Floats, seed: int
) -> tuple[Solver, NDArray[np.bool_]]:
    """A solver of one head for each fold and one for all pictures; and which pictures [N, folds] a fold leaves out."""
    count = max(2, min(FOLDS, int(np.bincount(labels).min())))
    out = np.zeros((len(labels), count), bool)
    splits = StratifiedKFold(count, shuffle=True, random_state=seed).split(out, labels)
    for number, (_, rows) in enumerate(splits):
        out[rows, number] = True
    rows = Rows([embeddings], np.arange(embeddings.shape[1]), labels, classes, blank)
    return Solver(rows, np.concatenate([~out, np.ones((len(labels), 1), bool)], axis=1)), out


def _held_out(heads: Heads, embeddings: Floats, out: NDArray[np.bool_]) -> Floats:
    """Logits [N, K] of each picture by the head that has not learned from it."""
    every = heads.logits(embeddings).numpy().astype(float)
    return np.asarray(every[out.argmax(1), np.arange(len(embeddings))])


def calibrated(base: Calibration, validation: Outputs, labels: Labels) -> Calibration:
    """The whole network's calibration with the threshold of "not sure" that suits the two together."""
    threshold = metrics.risk_threshold(base.probabilities(validation), labels, base.risk)
    return replace(base, confidence_threshold=threshold)
