"""int8 serves where it is as good as fp32 and quicker: each reason against it, and none."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.killing import ROOT
from tests.tiny import good_behaviour
from training import params
from training.evaluation.shortcuts import precision

LIMITS = params.load(ROOT / "params.yaml").promote
LABELS = np.arange(1000) % 2


def answers(wrong: int, changed: int = 0) -> np.ndarray:
    """Right answers but for the first `wrong` pictures, and others than that to the last `changed`."""
    found = LABELS.copy()
    found[:wrong] = 1 - found[:wrong]
    found[1000 - changed :] = 1 - found[1000 - changed :]
    return found


@pytest.mark.parametrize(
    ("wrong", "changed", "limits", "said"),
    [
        (10, 0, {}, None),
        (10, 2, {}, None),
        (10, 3, {}, "int8 changes 0.30% of the answers to the test pictures, more than 0.20%"),
        (
            10,
            2,
            {"max_int8_accuracy_loss": 0.001},
            "int8 lowers the accuracy from 0.9900 to 0.9880, by more than 0.001",
        ),
    ],
)
def test_int8_may_change_few_answers(wrong: int, changed: int, limits: dict[str, float], said: str | None) -> None:
    found = precision.changes(answers(wrong), answers(wrong, changed), LABELS)
    assert precision.too_different(found, LIMITS.model_copy(update=limits)) == said


def metrics() -> dict[str, Any]:
    told = {"value": 0.95, "interval": [0.9, 0.98]}
    behaviour = good_behaviour() | {"harmless": ["cropped"]}
    found = {"other_things": {"all": {"auroc_novelty": told, "not_sure": told}}, "behaviour": behaviour}
    return dict(json.loads(json.dumps(found)))  # nothing in it is in two places


def test_the_same_metrics_are_not_worse() -> None:
    assert precision.worse(metrics(), metrics()) is None


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (("other_things", "all", "auroc_novelty"), 0.89, "other things apart (AUROC of novelty): 0.8900, before 0.95"),
        (("other_things", "all", "auroc_novelty"), 0.91, None),
        (("other_things", "all", "not_sure"), 0.8, '"not sure" to other things'),
        (("behaviour", "invariance", "cropped", "same_answer"), 0.9, "pictures made cropped"),
        (("behaviour", "invariance", "mirrored", "same_answer"), 0.5, None),  # it is not said to be harmless
        (("behaviour", "direction", "noisy", "change"), -0.03, "losing confidence in noisy pictures"),
        (("behaviour", "direction", "noisy", "change"), -0.2, None),  # more of it is no worse
    ],
)
def test_int8_must_be_as_good_beside_the_answers(keys: tuple[str, ...], value: float, said: str | None) -> None:
    int8 = metrics()
    inner = int8
    for key in keys:
        inner = inner[key]
    inner["value"] = value
    found = precision.worse(metrics(), int8)
    assert (found is None) if said is None else (found is not None and said in found)


def test_few_test_pictures_show_nothing() -> None:
    assert precision.too_few(range(100), LIMITS) is None
    assert precision.too_few(range(99), LIMITS) == (
        "99 test pictures cannot show that int8 answers as fp32 does, 100 can"
    )


def chain(length: int) -> bytes:
    """A network of `length` convolutions."""
    weights = numpy_helper.from_array(np.zeros((8, 8, 3, 3), np.float32), "w")
    first = numpy_helper.from_array(np.zeros((8, 3, 3, 3), np.float32), "first")
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "first"], ["0"], pads=[1] * 4),
        *(helper.make_node("Conv", [f"{n}", "w"], [f"{n + 1}"], pads=[1] * 4) for n in range(length)),
    ]
    given = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 64, 64, 3])
    made = helper.make_tensor_value_info(f"{length}", TensorProto.FLOAT, ["n", 8, 64, 64])
    graph = helper.make_graph(nodes, "chain", [given], [made], [weights, first])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(onnx.ModelProto.SerializeToString(model))


def test_the_network_with_less_to_do_is_quicker() -> None:
    assert precision.speedup(chain(12), chain(1), np.zeros((64, 64, 3), np.uint8)) > 1
