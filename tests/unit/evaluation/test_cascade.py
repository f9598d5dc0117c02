"""Two graphs as one: the first answers easy pictures, the second those that the first calls hard."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.tiny import SIZE, tiny_onnx
from training.evaluation.shortcuts.cascade import HARD, cascade

OUTPUTS = ("probabilities", "embedding", "novelty", "activation")


def with_hard(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with `hard`: the pictures whose embedding is short (`novelty` below 1, in the tiny model)."""
    model.graph.initializer.append(numpy_helper.from_array(np.array(1, np.float32), "one"))
    model.graph.node.append(helper.make_node("Less", ["novelty", "one"], [HARD]))
    model.graph.output.append(helper.make_tensor_value_info(HARD, TensorProto.BOOL, ["n"]))
    return model


@pytest.fixture(scope="module")
def models() -> tuple[onnxruntime.InferenceSession, ...]:
    """First, second, and the two as one."""
    first, second = (tiny_onnx(2, skill, 0.0, seed, 30.0) for skill, seed in ((0.2, 1), (1.0, 0)))
    first = with_hard(first)
    both = cascade(first, second, OUTPUTS)
    return tuple(onnxruntime.InferenceSession(one.SerializeToString()) for one in (first, second, both))


def grey(*levels: int) -> np.ndarray:
    """Pictures of one grey each: those of 200 are easy, those of 100 are hard."""
    noise = np.random.default_rng(0).integers(-20, 20, (len(levels), SIZE, SIZE, 3))
    return np.clip(np.array(levels)[:, None, None, None] + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("levels", [(200,), (100,), (200, 100, 200), (100, 100), (200, 200), (100, 200, 100, 100)])
def test_each_picture_is_answered_by_the_one_that_is_meant_to(
    models: tuple[onnxruntime.InferenceSession, ...], levels: tuple[int, ...]
) -> None:
    pictures = grey(*levels)
    first, second, both = (one.run(list(OUTPUTS), {"image": pictures}) for one in models)
    for mine, easy, hard in zip(both, first, second, strict=True):
        assert mine.shape == hard.shape
        for place, level in enumerate(levels):
            np.testing.assert_allclose(mine[place], (easy if level == 200 else hard)[place], atol=1e-6)


def test_the_two_differ(models: tuple[onnxruntime.InferenceSession, ...]) -> None:
    first, second, _ = (one.run(["probabilities"], {"image": grey(200, 100)})[0] for one in models)
    assert np.abs(first - second).max() > 0.01


def test_the_second_is_inside_a_branch() -> None:
    made = cascade(with_hard(tiny_onnx(2, 0.2, 0.0, 1, 30.0)), tiny_onnx(2, 1.0, 0.0, 0, 30.0), OUTPUTS)
    outside = [node.op_type for node in made.graph.node]
    [branch] = [node for node in made.graph.node if node.op_type == "If"]
    [some] = [given.g for given in branch.attribute if given.name == "then_branch"]
    inside = [node.op_type for node in some.node]
    assert outside.count("Conv") == inside.count("Conv") == 1
    assert [value.name for value in made.graph.output] == list(OUTPUTS)
