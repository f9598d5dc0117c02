"""Ray Serve: a replica for each core, batches of up to 8."""

from __future__ import annotations

import signal
from typing import cast

import numpy as np
import ray
from ray import serve
from starlette.datastructures import UploadFile
from starlette.requests import Request

from tests.load.peers import common
from training.common.cores import usable_cores
from training.model.preprocess import load


@serve.deployment(num_replicas=usable_cores(), ray_actor_options={"num_cpus": 0.5}, max_ongoing_requests=64)
class Api:
    def __init__(self) -> None:
        self.classifier = common.classifier()

    @serve.batch(max_batch_size=common.BATCH, batch_wait_timeout_s=0.005)
    async def many(self, pictures: list[bytes]) -> list[dict[str, list[float]]]:
        how = self.classifier.folder.preprocessing
        found = self.classifier.predict(np.stack([load(picture, how) for picture in pictures]))
        return [common.answer(row) for row in found]

    async def __call__(self, request: Request) -> dict[str, list[float]]:
        form = await request.form()
        found: dict[str, list[float]] = await self.many(await cast(UploadFile, form["image"]).read())
        return found


if __name__ == "__main__":
    ray.init(num_cpus=usable_cores(), include_dashboard=False, log_to_driver=False, logging_level="warning")
    serve.start(http_options={"host": "127.0.0.1", "port": common.PORT})
    serve.run(cast(serve.Deployment, Api).bind(), route_prefix="/predict")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
