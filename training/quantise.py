"""The network in int8: quicker on a CPU and a quarter of the size (static quantisation, ONNX Runtime's QDQ format)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

BATCH = 8
# With the activation left out, its convolution is rounded over a range it never uses, and then rounded again.
KINDS = ("Conv", "Clip", "Relu", "Add", "MaxPool")
# Share of the convolutions, from the input on, that stay in fp32. In EfficientNet-Lite0 two thirds of the whole error
# came from the first two: few channels, large weights. The first six are no quicker in int8 either.
FIRST_IN_FP32 = 1 / 8


class Pictures(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """Hands pictures uint8 [N, size, size, 3] to the calibration, batch by batch."""

    def __init__(self, pictures: NDArray[np.uint8]) -> None:
        starts = range(0, len(pictures), BATCH)
        self.batches: Iterator[NDArray[np.uint8]] = (np.ascontiguousarray(pictures[s : s + BATCH]) for s in starts)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"image": batch}


def quantised(model: bytes, pictures: NDArray[np.uint8]) -> bytes:
    """`model` (image -> features) with most of its convolutions in int8, ranges set by what `pictures` give.

    Weights by channel and in 7 bits: the instruction that AVX2 has for int8 saturates with 8.
    """
    with TemporaryDirectory() as scratch:
        given, folded, made = (Path(scratch) / name for name in ("given.onnx", "folded.onnx", "int8.onnx"))
        given.write_bytes(model)
        quant_pre_process(given, folded, skip_symbolic_shape=True)  # padding goes into the convolutions
        quantize_static(
            folded,
            made,
            Pictures(pictures),
            op_types_to_quantize=list(KINDS),
            nodes_to_exclude=first_nodes(onnx.load(folded)),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return made.read_bytes()


def first_nodes(network: onnx.ModelProto) -> list[str]:
    """Names of the nodes before the first convolution that is quantised."""
    nodes = network.graph.node
    convolutions = [place for place, node in enumerate(nodes) if node.op_type == "Conv"]
    kept = max(1, round(FIRST_IN_FP32 * len(convolutions)))
    end = convolutions[kept] if kept < len(convolutions) else len(nodes)
    return [node.name for node in nodes[:end]]
