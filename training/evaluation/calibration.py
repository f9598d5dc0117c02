"""What serving needs beside the weights: temperature, novelty, and the thresholds that make the answer "not sure"."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training import params
from training.evaluation import metrics
from training.evaluation.novelty import Novelty
from training.evaluation.trained import EvaluationError, Outputs
from training.fit.temperature import fit_temperature

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Calibration:
    """All of it from pictures outside the test split, seen through the graph that serves."""

    temperature: float
    novelty: Novelty
    confidence_threshold: float
    novelty_threshold: float
    risk: float
    novelty_quantile: float

    @classmethod
    def fit(
        cls,
        train: Outputs,
        train_labels: Labels,
        validation: Outputs,
        validation_labels: Labels,
        settings: params.Evaluate,
        others: Outputs | None = None,
    ) -> Calibration:
        """Novelty from training pictures, temperature and thresholds from validation pictures.

        Where training and validation pictures were enlarged, they are blurred as no user's are, and next to them every
        sharp photograph looks novel. Then pictures of other things (`others`) set the novelty threshold: as high as
        catching the share `novelty_catch` of them allows.
        """
        temperature = fit_temperature(validation.logits, validation_labels)
        probs = metrics.probabilities(validation.logits, temperature)
        novelty = Novelty.fit(train.embeddings, train_labels)
        threshold = np.quantile(novelty.score(validation.embeddings), settings.novelty_quantile)
        if others is not None:
            caught = np.quantile(novelty.score(others.embeddings), 1 - settings.novelty_catch)
            threshold = max(threshold, caught)
        return cls(
            temperature,
            novelty,
            metrics.risk_threshold(probs, validation_labels, settings.risk),
            float(threshold),
            settings.risk,
            settings.novelty_quantile,
        )

    def probabilities(self, outputs: Outputs) -> Floats:
        return metrics.probabilities(outputs.logits, self.temperature)

    def strangeness(self, outputs: Outputs) -> Floats:
        """Novelty [N] of N pictures."""
        return self.novelty.score(outputs.embeddings) if outputs.novelty is None else outputs.novelty

    def answered(self, outputs: Outputs) -> NDArray[np.bool_]:
        """Which of N pictures get an answer; the others get "not sure"."""
        sure = self.probabilities(outputs).max(1) >= self.confidence_threshold
        return np.asarray(sure & (self.strangeness(outputs) <= self.novelty_threshold))

    def describe(self, test: Outputs, labels: Labels) -> dict[str, float]:
        """The thresholds, and what they come to on the test split: share answered, accuracy of the answers."""
        answered, right = self.answered(test), test.answers == labels
        return self.thresholds() | {
            "answered": float(answered.mean()),
            "accuracy_of_answers": float(right[answered].mean()) if answered.any() else 0.0,
        }

    def describe_others(self, test: Outputs, others: dict[str, Outputs]) -> dict[str, Any]:
        """How well pictures of other things (kind -> outputs) are told from those of the test split, by kind and in
        all: AUROC of the novelty and of the lack of confidence, each alone, and the share that gets "not sure"."""
        kinds = {"all": Outputs.joined(list(others.values())), **others}
        return {kind: self._told_apart(test, outputs) for kind, outputs in kinds.items()}

    def _told_apart(self, test: Outputs, others: Outputs) -> dict[str, Any]:
        refused = ~self.answered(others)
        novelty = (self.strangeness(test), self.strangeness(others))
        doubt = (-self.probabilities(test).max(1), -self.probabilities(others).max(1))
        return {
            "pictures": len(refused),
            "auroc_novelty": metrics.auroc(*novelty),
            "auroc_confidence": metrics.auroc(*doubt),
            "not_sure": metrics.share(refused),
        }

    def thresholds(self) -> dict[str, float]:
        names = ("confidence_threshold", "risk", "novelty_threshold", "novelty_quantile")
        return {name: getattr(self, name) for name in names}

    def save(self, path: Path) -> None:
        np.savez(
            path,
            temperature=self.temperature,
            **vars(self.novelty),
            confidence_threshold=self.confidence_threshold,
            novelty_threshold=self.novelty_threshold,
            risk=self.risk,
            novelty_quantile=self.novelty_quantile,
        )

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Raises EvaluationError when `evaluate` has not run."""
        if not path.is_file():
            raise EvaluationError(f"{path} is missing: run `dvc repro evaluate` (or `make run`) first")
        with np.load(path) as stored:
            novelty = Novelty(stored["centre"], stored["basis"], stored["projection"], stored["centres"])
            names = ("temperature", "confidence_threshold", "novelty_threshold", "risk", "novelty_quantile")
            return cls(novelty=novelty, **{name: float(stored[name]) for name in names})
