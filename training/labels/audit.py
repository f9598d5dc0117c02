"""The audit of all labels: features that training cached, heads that did not learn from what they judge, findings.

Train is judged by cross-validation (training.labels.held_out). Validation and test are judged by the heads of its
folds, so nothing that is learnt here about a test picture can reach the training labels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data.manifest import Manifest
from training import params
from training.fit.architectures import build
from training.fit.augment import PLAIN, plain
from training.fit.device import set_up
from training.fit.distributed import ALONE
from training.fit.head import Features
from training.fit.outputs import SUMMARY_FILE
from training.fit.pooled import Frozen, Split
from training.fit.solve import SEARCHED, columns_of, every_level, level_sets, sample
from training.labels import noise
from training.labels.findings import Judged
from training.labels.held_out import Learnt
from training.labels.noise import Floats
from training.model.preprocess import Preprocessing

WITHOUT_TRAINING = "efficientnet_lite0"
STRENGTH = 0.1  # of a head whose strength was not chosen; what is found hardly depends on it (0.03 to 0.3)
SPLITS = ("train", "validation", "test")
DIRECTIONS = 64


@dataclass(frozen=True)
class Judge:
    """What judges labels: a frozen backbone, its levels, and the strength of the head on them."""

    frozen: Frozen
    how: Preprocessing
    cached: tuple[int, ...]  # levels whose averages are computed together
    levels: tuple[int, ...]  # those of them that judge
    strength: float

    @classmethod
    def of(cls, settings: params.Train, manifest: Manifest) -> Judge:
        """As the stage `train` made it. Of the recipes that it tried the one with the lowest loss on plain pictures, if
        its features are cached."""
        summary = json.loads(SUMMARY_FILE.read_text())
        if not (head := summary["head"]):
            return cls.untrained(manifest, settings.seed)
        how = Preprocessing(**summary["preprocessing"])
        frozen = _frozen(summary["architecture"], settings.weights, how, manifest, settings.seed)
        return cls(frozen, how, *_recipe(frozen, head, manifest.labels(manifest.split("train"))))

    @classmethod
    def untrained(cls, manifest: Manifest, seed: int) -> Judge:
        """Where the network of `train` was not pretrained: what it makes of pictures follows the labels in question."""
        how = Preprocessing(224, 256, "bilinear")
        frozen = _frozen(WITHOUT_TRAINING, "DEFAULT", how, manifest, seed)
        every = _every(frozen)
        return cls(frozen, how, every, every, STRENGTH)

    def features(self, split: Split) -> Features:
        """Averages [N, D] of the levels, from the cache where it has them."""
        columns = columns_of(self.frozen, self.cached, self.levels)
        return np.asarray(self.frozen.pooled(split, PLAIN, plain, self.cached)[:, columns])

    def account(self) -> dict[str, Any]:
        return {"backbone": self.frozen.name, "levels": list(self.levels), "strength": self.strength}


def _frozen(architecture: str, weights: str | None, how: Preprocessing, manifest: Manifest, seed: int) -> Frozen:
    device = set_up(seed)
    model = build(architecture, weights, len(manifest.classes)).to(device)
    return Frozen(model, f"{architecture} {weights}", how.size, device, ALONE)


def _every(frozen: Frozen) -> tuple[int, ...]:
    return every_level(level_sets(frozen.model.sides(frozen.size)))


def _recipe(
    frozen: Frozen, head: dict[str, Any], labels: NDArray[np.int64]
) -> tuple[tuple[int, ...], tuple[int, ...], float]:
    """Levels that are cached, levels that judge, and strength. Training caches every level where it searched among all
    pictures, else those it chose."""
    sets = level_sets(frozen.model.sides(frozen.size))
    searched = len(sample(labels, SEARCHED))
    if searched == len(labels):
        best = min(head["table"], key=lambda row: row["log_loss"])
        return _every(frozen), sets[best["levels"]], float(best["strength"])
    levels = sets[head["candidate"]["levels"]]
    return levels, levels, float(head["strength"]) * searched / len(labels)


def audit(settings: params.Train, manifest: Manifest) -> tuple[list[Judged], dict[str, Any]]:
    """Every split judged, in the order of SPLITS, and what judged it."""
    judge = Judge.of(settings, manifest)
    found = judged(judge, manifest, settings.seed)
    return found, judge.account()


def judged(judge: Judge, manifest: Manifest, seed: int) -> list[Judged]:
    """Every split as `judge` sees it; with other labels in the manifest, by other heads on the same features."""
    splits = {name: Split.read(manifest, name, judge.how, ALONE) for name in SPLITS}
    features = {name: judge.features(split) for name, split in splits.items()}
    nothing = judge.features(Split.of_nothing(judge.frozen.size))
    rows = {name: manifest.split(name) for name in SPLITS}
    labels = splits["train"].labels.numpy()
    classes = len(manifest.classes)
    groups = splits["train"].groups.numpy()
    learnt = Learnt(features["train"], labels, groups, classes, judge.strength, nothing, seed)
    answers = learnt.run()
    familiar = Familiar.of(features["train"], labels)
    found = []
    for name in SPLITS:
        mine, truth = features[name], splits[name].labels.numpy()
        logits = answers.logits if name == "train" else answers.others(mine)
        weights = noise.once(splits[name].groups.numpy())
        fitted = answers.noise if name == "train" else noise.fit(logits, truth, weights)
        found.append(Judged(name, rows[name], manifest.classes, truth, logits, familiar.unlike(mine), fitted))
    return found


@dataclass(frozen=True)
class Familiar:
    """The centre [D] of pictures, and an orthonormal basis [D, b] of the main directions in which they differ.

    As training.evaluation.novelty, but the directions are found at random (Halko et al. 2011): 0.3 s in place of 22 for
    1,400 pictures and 3,120 features, and these need not travel with a model.
    """

    centre: torch.Tensor
    basis: torch.Tensor

    @classmethod
    def of(cls, features: Features, labels: NDArray[np.int64]) -> Familiar:
        seen, truth = torch.from_numpy(np.array(features, np.float32)), torch.from_numpy(labels)
        means = torch.stack([seen[truth == label].mean(0) for label in range(int(truth.max()) + 1)])
        apart = seen - means[truth]
        within = torch.pca_lowrank(apart, q=min(DIRECTIONS, *apart.shape), center=False)[2]
        centre = seen.mean(0)
        return cls(centre, torch.linalg.qr(torch.cat([within, (means - centre).T], dim=1))[0])

    def unlike(self, features: Features) -> Floats:
        """The share [N] of a picture's features that lies outside of those directions."""
        seen = torch.from_numpy(np.array(features, np.float32))
        moved = seen - self.centre
        outside = moved.square().sum(1) - (moved @ self.basis).square().sum(1)
        share: Floats = (outside.clamp(min=0) / seen.square().sum(1).clamp(min=1e-12)).sqrt().double().numpy()
        return share
