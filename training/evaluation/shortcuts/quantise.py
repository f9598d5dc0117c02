"""The network in int8: quicker on a CPU and a quarter of the size (static quantisation, ONNX Runtime's QDQ format)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from training.fit.forward import BATCH, run_batches, runner

# With the activation left out, its convolution is rounded over a range it never uses, and then rounded again.
KINDS = ("Conv", "Clip", "Relu", "Add", "MaxPool")
# Share of the convolutions, from the input on, that stay in fp32. In EfficientNet-Lite0 two thirds of the whole error
# came from the first two: few channels, large weights. The first three are no quicker in int8 either.
FIRST_IN_FP32 = 1 / 16
LEVELS = 127  # of a weight in 8 bits, on either side of zero


class Pictures(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """Hands pictures uint8 [N, size, size, 3] to the calibration, batch by batch."""

    def __init__(self, pictures: NDArray[np.uint8]) -> None:
        starts = range(0, len(pictures), BATCH)
        self.batches: Iterator[NDArray[np.uint8]] = (np.ascontiguousarray(pictures[s : s + BATCH]) for s in starts)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"image": batch}


def quantised(model: bytes, pictures: NDArray[np.uint8]) -> bytes:
    """`model` (image -> features [N, D, h, w]) with most of its convolutions in int8, ranges set on `pictures`.

    What rounding adds to each feature on average, on the same pictures, is taken off again (bias correction, Nagel et
    al. 2019).
    """
    with TemporaryDirectory() as scratch:
        given, folded, made = (Path(scratch) / name for name in ("given.onnx", "folded.onnx", "int8.onnx"))
        given.write_bytes(model)
        quant_pre_process(given, folded, skip_symbolic_shape=True)  # padding goes into the convolutions
        network = onnx.load(folded)
        quantize_static(
            folded,
            made,
            Pictures(pictures),
            op_types_to_quantize=list(KINDS),
            nodes_to_exclude=first_nodes(network),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"TensorQuantOverrides": weight_steps(network)},
        )
        rounded = made.read_bytes()
    return shifted(rounded, feature_means(model, pictures) - feature_means(rounded, pictures))


def weight_steps(network: onnx.ModelProto) -> dict[str, list[dict[str, Any]]]:
    """The step of each output channel's weights, as ONNX Runtime's TensorQuantOverrides, for every convolution."""
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in network.graph.initializer}
    found = {}
    for node in network.graph.node:
        if node.op_type == "Conv" and node.input[1] in tensors:
            weights = tensors[node.input[1]]
            steps = channel_steps(weights, depthwise=helper.get_node_attr_value(node, "group") == len(weights))
            made = [{"quant_type": QuantType.QInt8, "scale": step, "zero_point": np.int8(0)} for step in steps]
            found[node.input[1]] = [made[0] | {"axis": 0}, *made[1:]]
    return found


def channel_steps(weights: NDArray[np.float32], depthwise: bool) -> NDArray[np.float32]:
    """A safe step [O] of weights [O, I, h, w] in 8 bits.

    AVX2 adds two neighbouring products, activation in 8 bits times weight, in 16 bits, and saturates: two neighbours of
    one sign may add up to no more than a single weight may be. Depthwise convolutions are computed otherwise.
    """
    rows = weights.transpose(0, 2, 3, 1).reshape(len(weights), -1)  # as they lie in memory when they are multiplied
    largest = np.abs(rows).max(1)
    if not depthwise:
        largest = np.maximum(largest, np.abs(rows[:, :-1] + rows[:, 1:]).max(1, initial=0))
    steps: NDArray[np.float32] = np.where(largest > 0, largest, 1).astype(np.float32) / np.float32(LEVELS)
    return steps


def feature_means(model: bytes, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean [D] of each feature of `model` over `pictures` and places."""
    parts = run_batches(
        runner(model), lambda rows: np.ascontiguousarray(pictures[rows]), len(pictures), "feature means"
    )
    means: NDArray[np.float32] = np.sum([part.mean((2, 3)).sum(0) for _, part in parts], axis=0) / len(pictures)
    return means


def shifted(model: bytes, shift: NDArray[np.float32]) -> bytes:
    """`model` with `shift` [D] added to its features."""
    network = onnx.load_from_string(model)
    [output] = network.graph.output
    for node in network.graph.node:
        node.output[:] = ["rounded" if name == output.name else name for name in node.output]
    network.graph.initializer.append(numpy_helper.from_array(shift[:, None, None], "shift"))
    network.graph.node.append(helper.make_node("Add", ["rounded", "shift"], [output.name], name="shift"))
    return bytes(network.SerializeToString(deterministic=True))


def first_nodes(network: onnx.ModelProto) -> list[str]:
    """Names of the nodes before the first convolution that is quantised."""
    nodes = network.graph.node
    convolutions = [place for place, node in enumerate(nodes) if node.op_type == "Conv"]
    kept = max(1, round(FIRST_IN_FP32 * len(convolutions)))
    end = convolutions[kept] if kept < len(convolutions) else len(nodes)
    return [node.name for node in nodes[:end]]
