"""Two ONNX graphs as one: the first answers the easy pictures of a batch, the second only runs for the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

IMAGE, HARD = "image", "hard"
FIRST, SECOND = "glance/", "whole/"


def cascade(first: onnx.ModelProto, second: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """One model of two that take the same `image` [N, ...] and give the same `outputs` [N, ...].

    `first` gives one more, `hard` bool [N]: the pictures that `second` answers. It runs on these alone, together, and
    not at all where there are none (ONNX's If), so a batch costs what is in it.
    """
    first = compose.add_prefix(first, FIRST, rename_inputs=False)
    second = compose.add_prefix(second, SECOND)
    hard, rows, some, count = (f"cascade/{name}" for name in ("hard", "rows", "some", "count"))
    nodes = [
        *first.graph.node,
        helper.make_node("NonZero", [FIRST + HARD], ["cascade/places"]),  # [1, M]
        helper.make_node("Transpose", ["cascade/places"], [rows], perm=[1, 0]),
        helper.make_node("Cast", [FIRST + HARD], [hard], to=TensorProto.INT32),
        helper.make_node("ReduceMax", [hard], [count], keepdims=0),
        helper.make_node("Cast", [count], [some], to=TensorProto.BOOL),
        helper.make_node(
            "If",
            [some],
            list(outputs),
            then_branch=_both(second, outputs, rows),
            else_branch=_one(first, outputs),
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "cascade",
        list(first.graph.input),
        [_named(value, name) for value, name in zip(second.graph.output, outputs, strict=True)],
        list(first.graph.initializer),
    )
    opsets = {each.domain: each for model in (first, second) for each in model.opset_import}
    made = helper.make_model(graph, opset_imports=list(opsets.values()), ir_version=second.ir_version)
    onnx.checker.check_model(made)
    return made


def _both(second: onnx.ModelProto, outputs: Sequence[str], rows: str) -> onnx.GraphProto:
    """The answers of the first with those of the second written over them, at `rows` [M, 1] of the batch."""
    flat = numpy_helper.from_array(np.array([1], np.int64), "cascade/axis")
    nodes = [
        helper.make_node("Squeeze", [rows, "cascade/axis"], ["cascade/list"]),
        helper.make_node("Gather", [IMAGE, "cascade/list"], [SECOND + IMAGE], axis=0),
        *second.graph.node,
        *(
            helper.make_node("ScatterND", [FIRST + name, rows, SECOND + name], [f"both/{name}"], name=f"both/{name}")
            for name in outputs
        ),
    ]
    made = [_named(value, f"both/{name}") for value, name in zip(second.graph.output, outputs, strict=True)]
    return helper.make_graph(nodes, "some are hard", [], made, [*second.graph.initializer, flat])


def _one(first: onnx.ModelProto, outputs: Sequence[str]) -> onnx.GraphProto:
    """The answers of the first alone."""
    nodes = [helper.make_node("Identity", [FIRST + name], [f"one/{name}"], name=f"one/{name}") for name in outputs]
    made = [_named(value, f"one/{name}") for value, name in zip(first.graph.output, outputs, strict=False)]
    return helper.make_graph(nodes, "all are easy", [], made)


def _named(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    renamed = onnx.ValueInfoProto()
    renamed.CopyFrom(value)
    renamed.name = name
    return renamed
