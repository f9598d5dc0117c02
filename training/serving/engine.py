"""The network in threads: narrow runs side by side where there is work for every core, else one wide run."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.common.cores import usable_cores
from training.model.classifier import Classifier
from training.model.folder import ModelFolder
from training.model.reference import Reference
from training.serving.threads import Threads

OUTPUTS = ("probabilities", "novelty", "activation", "embedding")
WIDE = 4  # threads of a lone picture's run at most: more are in one another's way
FRESH_S = 5.0  # an answer this young proves that the model works
PROOF_S = 3.0  # how long one may take


class Seen(NamedTuple):
    """What the network says about one picture: float32 [classes], a number, float32 [classes, h, w], its sketch as the
    bytes of float16 little-endian [32] or None; when its run began (time.perf_counter) and how long it took."""

    probabilities: NDArray[np.float32]
    novelty: float
    activation: NDArray[np.float32]
    sketch: bytes | None
    begun: float
    seconds: float


class Engine:
    """Runs the network for batches. One thread for each core and each run on one core is the most pictures a second;
    a lone picture is answered sooner by all cores together (measured: see the README's benchmark).

    Each thread has a session of its own: two runs in one session of ONNX Runtime take up to a sixth longer, in some
    processes and not in others.
    """

    def __init__(self, folder: ModelFolder, pool: Threads) -> None:
        cores = min(usable_cores(), WIDE)
        first = Classifier(folder)
        first.self_check()
        on_gpu = "CUDAExecutionProvider" in first.session.get_providers()
        self._narrow = deque([first, *(first if on_gpu else Classifier(folder) for _ in range(pool.number - 1))])
        self._wide = None if on_gpu or cores == 1 else Classifier(folder, cores)
        self._reference = Reference.load(folder.path)
        self._size = folder.preprocessing.size
        self._pool = pool
        self._running = 0
        self._answered = time.monotonic()

    async def run(self, pixels: list[NDArray[np.uint8]], alone: bool = False) -> list[Seen]:
        """What the network says about each of `pixels`; `alone`: nothing else waits for a core."""
        wide = self._wide if alone and self._running == 0 else None
        self._running += 1
        try:
            seen = await self._pool.run(self._forward, wide, pixels)
        finally:
            self._running -= 1
        self._answered = time.monotonic()
        return seen

    async def alive(self) -> bool:
        """Whether the model answers: it did a moment ago, or it does now."""
        if time.monotonic() - self._answered < FRESH_S:
            return True
        try:
            async with asyncio.timeout(PROOF_S):
                await self.run([np.zeros((self._size, self._size, 3), np.uint8)])
        except TimeoutError:
            return False
        return True

    def _forward(self, wide: Classifier | None, pixels: list[NDArray[np.uint8]]) -> list[Seen]:
        begun = time.perf_counter()
        classifier = wide or self._narrow.pop()  # as many as threads: never empty
        try:
            probabilities, novelty, activation, embeddings = classifier.run(np.stack(pixels), OUTPUTS)
        finally:
            if classifier is not wide:
                self._narrow.append(classifier)
        sketches = [None] * len(pixels) if self._reference is None else _half(self._reference.sketch(embeddings))
        seconds = time.perf_counter() - begun
        rows = zip(probabilities, novelty.tolist(), activation, sketches, strict=True)
        return [Seen(*row, begun, seconds) for row in rows]


def _half(sketches: NDArray[np.float32]) -> list[bytes]:
    return [row.tobytes() for row in sketches.astype("<f2")]
