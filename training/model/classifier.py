"""The classifier: probabilities of a model folder by ONNX Runtime. What serves is what is judged.

Only numpy, ONNX Runtime and what decodes pictures are imported: this module travels into the Bento.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from training.model.folder import MODEL_FILE, ModelFolder, ModelFolderError
from training.model.preprocess import QUICK, load

if TYPE_CHECKING:
    import onnxruntime

SELF_CHECK_TOLERANCE = 1e-3  # in probability; kernels differ between processors, by far less than this
# Where the model was exported with the other of the two resizers: 80 photographs differed by at most 0.0017.
OTHER_RESIZER_TOLERANCE = 0.02


class Classifier:
    """Predictions from a model folder. Thread-safe: sessions of ONNX Runtime may run in several threads at once."""

    def __init__(self, folder: ModelFolder, threads: int = 1) -> None:
        import onnxruntime  # here, because BentoML's supervisor imports this module and never runs a model

        self.folder = folder
        self.session = onnxruntime.InferenceSession(
            str(folder.path / MODEL_FILE), session_options(threads), providers=providers()
        )

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities float32 [N, classes] of preprocessed pictures uint8 [N, size, size, 3]."""
        return self.run(images, ("probabilities",))[0]

    def run(self, images: NDArray[np.uint8], outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        """The named outputs of the network, in order."""
        return list(self.session.run(list(outputs), {"image": images}))

    def predict_bytes(self, pictures: Sequence[bytes]) -> NDArray[np.float32]:
        """Probabilities float32 [N, classes] of picture files; PictureError for the first that is not one."""
        return self.predict(np.stack([load(data, self.folder.preprocessing) for data in pictures]))

    def self_check(self) -> None:
        """Predict the embedded pictures; ModelFolderError when an answer is not the one recorded at evaluation."""
        environment = self.folder.card.get("lineage", {}).get("environment", {})
        same_resizer = ("cykooz-resizer" in environment) == QUICK
        tolerance = SELF_CHECK_TOLERANCE if same_resizer else OTHER_RESIZER_TOLERANCE
        for record in self.folder.card["self_check"]:
            path = self.folder.path / record["file"]
            probabilities = self.predict_bytes([path.read_bytes()])[0]
            difference = float(np.abs(probabilities - np.asarray(record["probabilities"])).max())
            if not difference <= tolerance:
                raise ModelFolderError(
                    f"self-check failed on {path}: probabilities differ from those of evaluation by {difference:.2g}, "
                    f"more than {tolerance:g}"
                )


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Options for a session that shares the processor with others: `threads` of its own, none of them spinning."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_mem_pattern = False  # it keeps memory for every size of batch, and gains nothing here
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin while they wait take the processor from the HTTP server beside them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def providers() -> list[str]:
    """Where networks run here: on a GPU if ONNX Runtime is built for one, then on the CPU."""
    import onnxruntime

    available = onnxruntime.get_available_providers()
    return [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
