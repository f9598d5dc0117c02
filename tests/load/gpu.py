"""Pictures a second of the exported model on ONNX Runtime's CUDA and CPU providers, and whether both say the same.

Part of gpu.sh, on a machine with a GPU and onnxruntime-gpu; exit code 1 where there is none or a probability differs.
"""

from __future__ import annotations

import time
from itertools import cycle, islice

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from training.common.command import run_command
from training.common.errors import ExpectedError
from training.common.table import columns
from training.model.classifier import session_options
from training.model.folder import MODEL_FILE, MODEL_FOLDER, ModelFolder
from training.model.preprocess import load

BATCHES = (1, 2, 4, 8, 16, 32, 64)
SECONDS = 3.0  # of each measurement
SAME = 2e-3  # in probability: a GPU adds up in another order
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


class GpuError(ExpectedError):
    """There is no GPU to measure, or it answers otherwise than the CPU."""


def rate(session: onnxruntime.InferenceSession, pictures: NDArray[np.uint8], seconds: float) -> float:
    """Pictures a second in batches of len(pictures), after three that do not count."""
    for _ in range(3):
        session.run(None, {"image": pictures})
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        session.run(None, {"image": pictures})
        done += len(pictures)
    return done / (time.perf_counter() - begun)


def compared(folder: ModelFolder, providers: tuple[str, ...] = PROVIDERS, seconds: float = SECONDS) -> str:
    """The table; GpuError when a provider is missing or the first says other probabilities than the last."""
    missing = [name for name in providers if name not in onnxruntime.get_available_providers()]
    if missing:
        raise GpuError(
            f"ONNX Runtime has no {', '.join(missing)} here: install onnxruntime-gpu on a machine with a GPU"
        )
    sessions = [
        onnxruntime.InferenceSession(str(folder.path / MODEL_FILE), session_options(threads=0), providers=[name])
        for name in providers
    ]
    files = [folder.path / record["file"] for record in folder.card["self_check"]]
    few = [load(file.read_bytes(), folder.preprocessing) for file in files]
    rows = [("batch", *(f"{name.removesuffix('ExecutionProvider')} (pictures/s)" for name in providers), "difference")]
    for batch in BATCHES:
        pictures = np.stack(list(islice(cycle(few), batch)))
        answers = [session.run(["probabilities"], {"image": pictures})[0] for session in sessions]
        difference = float(np.abs(answers[0] - answers[-1]).max())
        if not difference <= SAME:
            raise GpuError(f"the providers differ by {difference:.2g} in probability, more than {SAME:g}")
        rates = (f"{rate(session, pictures, seconds):.0f}" for session in sessions)
        rows.append((str(batch), *rates, f"{difference:.1g}"))
    return columns(rows)


def main() -> None:
    print(compared(ModelFolder.open(MODEL_FOLDER)))


if __name__ == "__main__":
    run_command(main)
