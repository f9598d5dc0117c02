"""LitServe: a worker for each core, batches of up to 8. It reads the annotations, so they must not be strings."""

import litserve
import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from tests.load.peers import common
from training.common.cores import usable_cores
from training.model.preprocess import load


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.classifier = common.classifier()

    def decode_request(self, request: Request) -> NDArray[np.uint8]:
        return load(request["image"].file.read(), self.classifier.folder.preprocessing)

    def batch(self, inputs: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        return np.stack(inputs)

    def predict(self, x: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.classifier.predict(x)

    def unbatch(self, output: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return list(output)

    def encode_response(self, output: NDArray[np.float32]) -> dict[str, list[float]]:
        return common.answer(output)


if __name__ == "__main__":
    api = Api(max_batch_size=common.BATCH, batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=usable_cores(), track_requests=False)
    server.run(host="127.0.0.1", port=common.PORT, log_level="warning", generate_client_file=False)
