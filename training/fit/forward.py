"""Forward passes over many pictures, as quick as the device allows.

On a CPU they go through ONNX Runtime, one single-threaded stream for each core: two to three times the pictures per
second of torch's eager mode. Elsewhere torch runs them.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.common.cores import usable_cores
from training.common.progress import Bar
from training.fit.device import give_back_freed_memory
from training.model.classifier import session_options

BATCH = 8  # larger ones are slower on a CPU
OPSET = 18

Read = Callable[[slice], NDArray[np.uint8]]  # pictures [N, size, size, 3] of a slice of the rows
Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class Network(nn.Module):
    """A module that takes normalised channels, as one that takes pictures uint8 [N, size, size, 3]."""

    def __init__(self, normalise: Callable[[Tensor], Tensor], module: nn.Module) -> None:
        super().__init__()
        self.normalise = normalise
        self.module = module

    def forward(self, pictures: Tensor) -> Tensor:
        found: Tensor = self.module(self.normalise(pictures.permute(0, 3, 1, 2)))
        return found


def onnx_bytes(module: nn.Module, size: int, outputs: Sequence[str]) -> bytes:
    """`module` on pictures uint8 [N, size, size, 3] as an ONNX file with a dynamic batch dimension."""
    return traced(module, "image", torch.zeros(2, size, size, 3, dtype=torch.uint8), outputs)


def traced(module: nn.Module, given: str, example: Tensor, outputs: Sequence[str]) -> bytes:
    """`module` on its input, named `given` and shaped like `example` [N, ...], as an ONNX file."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        # The TorchScript exporter: ten times quicker than the newer one, and its graph names no file of this machine.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (example,),
            file,  # type: ignore[arg-type]  # any binary file, says its documentation
            input_names=[given],
            output_names=list(outputs),
            dynamic_axes={name: {0: "batch"} for name in (given, *outputs)},
            opset_version=OPSET,
            dynamo=False,
        )
    return file.getvalue()


def forward(
    network: Network, device: torch.device, read: Read, count: int, size: int, title: str
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield (first row, outputs) for `count` pictures in order, with a progress bar."""
    run, streams = ready(network, device, size)
    yield from run_batches(run, read, count, title, streams)
    del run
    give_back_freed_memory()


def ready(network: Network, device: torch.device, size: int) -> tuple[Run, int]:
    """`network` as a function, and how many calls of it at once are quickest: making it takes a second."""
    if device.type == "cpu":
        return runner(onnx_bytes(network.cpu(), size, ["output"])), usable_cores()
    return _torch(network.to(device), device), 1


def run_batches(
    run: Run, read: Read, count: int, title: str, streams: int | None = None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The same through any function; `streams` calls of it at once, one for each core unless told otherwise."""
    slices = [slice(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
    with ThreadPoolExecutor(streams or usable_cores()) as pool:
        found = pool.map(lambda rows: run(read(rows)), slices)
        with Bar(total=count, desc=title, unit="picture") as bar:
            for rows, outputs in zip(slices, found, strict=True):
                yield rows.start, outputs
                bar.update(rows.stop - rows.start)


def runner(model: bytes) -> Run:
    """The first output of an ONNX file that takes pictures, on one thread of the caller."""
    session = onnxruntime.InferenceSession(model, session_options(threads=1), providers=["CPUExecutionProvider"])

    def run(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        outputs: NDArray[np.float32] = session.run(None, {"image": pictures})[0]
        return outputs

    return run


def _torch(network: Network, device: torch.device) -> Run:
    def run(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            outputs: NDArray[np.float32] = network(torch.from_numpy(pictures).to(device)).cpu().numpy()
        return outputs

    return run
