"""BentoML's batchable API as its documentation shows it: a list of pictures in, a list of answers out."""

from __future__ import annotations

import bentoml
import numpy as np
from PIL.Image import Image

from tests.load.peers import common
from training.common.cores import usable_cores
from training.model.preprocess import shrink


@bentoml.service(workers=usable_cores(), traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Batchable:
    def __init__(self) -> None:
        self.classifier = common.classifier()

    @bentoml.api(batchable=True, max_batch_size=common.BATCH, max_latency_ms=10_000)
    def predict(self, images: list[Image]) -> list[list[float]]:
        how = self.classifier.folder.preprocessing
        found: list[list[float]] = self.classifier.predict(np.stack([shrink(one, how) for one in images])).tolist()
        return found
