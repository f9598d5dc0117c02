"""MLServer: a worker for each core, its adaptive batching off for lack of gain; pictures as base64 (V2 protocol)."""

from __future__ import annotations

from mlserver import MLModel
from mlserver.codecs import Base64Codec, NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from tests.load.peers import common


class Runtime(MLModel):
    async def load(self) -> bool:
        self.classifier = common.classifier()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        pictures = Base64Codec.decode_input(payload.inputs[0])
        found = self.classifier.predict_bytes(pictures)
        output = NumpyCodec.encode_output("probabilities", found)
        return InferenceResponse(model_name=self.name, outputs=[output])
