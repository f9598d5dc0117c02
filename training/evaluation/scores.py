"""What a model answers on the frozen test split, by the code that serves: ONNX Runtime and the shared preprocessing."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from data.cache import CACHE_FOLDER, stored
from data.manifest import Picture, decoded, decoded_key
from training.common.cores import usable_cores
from training.common.files import replacing
from training.common.progress import Bar
from training.model.classifier import Classifier
from training.model.folder import ModelFolder

BATCH = 32
NO_CHANCE = 1e-7  # probability counted for a class that the model does not know, and the lowest for any other


@dataclass(frozen=True)
class Scores:
    """Answers of one model. Classes are compared by name: a picture of a class it does not know counts as an error.

    probabilities: float32 [N, classes of the model]; labels: the N true names.
    """

    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]
    labels: tuple[str, ...]

    @cached_property
    def answers(self) -> NDArray[np.str_]:
        """The N names it answers."""
        return np.asarray(np.array(self.classes)[self.probabilities.argmax(axis=1)])

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        return np.asarray(self.answers == np.array(self.labels))

    @cached_property
    def losses(self) -> NDArray[np.float64]:
        """Log-loss of every picture, in nats."""
        index = {name: number for number, name in enumerate(self.classes)}
        columns = np.array([index.get(label, -1) for label in self.labels])
        taken = np.where(columns >= 0, self.probabilities[np.arange(len(columns)), columns], 0.0)
        return np.asarray(-np.log(np.clip(taken, NO_CHANCE, 1.0)), dtype=np.float64)

    def where(self, mask: NDArray[np.bool_]) -> Scores:
        """Those of the pictures that `mask` [N] marks."""
        labels = tuple(label for label, wanted in zip(self.labels, mask, strict=True) if wanted)
        return Scores(self.classes, self.probabilities[mask], labels)

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())

    @property
    def log_loss(self) -> float:
        return float(self.losses.mean())


def score(folder: ModelFolder, pictures: Sequence[Picture]) -> Scores:
    """The scores of a model on `pictures`; kept in a cache, since neither changes under its name."""
    key = f"{folder.sha256} {onnxruntime.__version__} {decoded_key(pictures, folder.preprocessing)}"
    path = CACHE_FOLDER / "scores" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
    found = stored(path, lambda path: _keep(path, _predict(folder, pictures)))
    return Scores(folder.classes, np.array(found), tuple(picture.label for picture in pictures))


def _predict(folder: ModelFolder, pictures: Sequence[Picture]) -> NDArray[np.float32]:
    images = decoded(pictures, folder.preprocessing)
    return answers(Classifier(folder), images, ("probabilities",), f"scoring with model {folder.sha256[:8]}")[0]


def answers(
    classifier: Classifier, images: NDArray[np.uint8], outputs: Sequence[str], title: str
) -> list[NDArray[np.float32]]:
    """The named outputs of the network for all `images` uint8 [N, size, size, 3], one batch on each core at a time."""

    def run(start: int) -> list[NDArray[np.float32]]:
        return classifier.run(np.ascontiguousarray(images[start : start + BATCH]), outputs)

    starts = range(0, len(images), BATCH)
    with ThreadPoolExecutor(usable_cores()) as pool:
        parts = list(Bar(pool.map(run, starts), title, len(starts), unit="batch"))
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def _keep(path: Path, probabilities: NDArray[np.float32]) -> None:
    with replacing(path) as part, part.open("wb") as file:
        np.save(file, probabilities)


def latencies_ms(folders: Sequence[ModelFolder], pictures: Sequence[bytes], turns: int = 3) -> list[float]:
    """Mean time of a picture, from its bytes to its probabilities, for each model.

    Of each picture the best of some turns counts, and the models take turns: whatever else the machine does hits all
    alike.
    """
    classifiers = [Classifier(folder) for folder in folders]
    for classifier in classifiers:
        classifier.predict_bytes([pictures[0]])
    times = np.zeros((turns, len(pictures), len(folders)))
    for turn, picture, model in np.ndindex(times.shape):
        start = time.perf_counter()
        classifiers[model].predict_bytes([pictures[picture]])
        times[turn, picture, model] = (time.perf_counter() - start) * 1000
    return [float(mean) for mean in times.min(axis=0).mean(axis=0)]
