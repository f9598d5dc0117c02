"""A first look: what it learns, when it answers, and that nothing else answers otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.tiny import SIZE, tiny_picture
from training.evaluation.calibration import Calibration
from training.evaluation.novelty import Novelty
from training.evaluation.shortcuts import glance
from training.evaluation.shortcuts.glance import Look
from training.evaluation.trained import Outputs
from training.model.preprocess import Preprocessing, load

pytestmark = pytest.mark.torch

HOW = Preprocessing(SIZE, SIZE)


def colours() -> bytes:
    """A backbone whose features are colours, averaged over squares of 8 x 8 pixels."""
    scale = numpy_helper.from_array(np.array(255, np.float32), "scale")
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["features"], kernel_shape=[8, 8], strides=[8, 8]),
    ]
    given = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", SIZE, SIZE, 3])
    made = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 3, 4, 4])
    graph = helper.make_graph(nodes, "colours", [given], [made], [scale])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(onnx.ModelProto.SerializeToString(model))


def pictures(start: int, count: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(count) % 2
    found = [load(tiny_picture(int(label), start + n, noise=noise), HOW) for n, label in enumerate(labels)]
    return np.stack(found), labels


@pytest.fixture(scope="module")
def look() -> Look:
    found = Look.fit(colours(), 0.1, pictures(0, 120, 0.03), pictures(500, 40, 0.03)[0], seed=1)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def whole() -> Calibration:
    """That of a whole network whose novelty is the first look's, on a scale of its own."""
    novelty = Novelty.fit(glance.pooled(colours(), pictures(0, 60, 0.03)[0], "") + 1, np.arange(60) % 2)
    return Calibration(2.0, novelty, 0.5, 0.25, 0.1, 0.99)


def test_the_share_that_may_be_wrong_sets_the_confidence() -> None:
    sure = np.linspace(1, 0.5, 2000)
    probabilities, wrong = np.stack([sure, 1 - sure], axis=1), np.zeros(2000, bool)
    assert glance.sure(probabilities, wrong) == 0.5
    wrong[[500, 1000, 1500]] = True  # two of 2,000 may be
    assert glance.sure(probabilities, wrong) == pytest.approx(sure[1499])
    assert glance.sure(probabilities[:999], np.arange(999) == 0) is None  # the surest answer is wrong


def test_of_pictures_that_are_equally_sure_all_count() -> None:
    probabilities = np.tile([0.9, 0.1], (1000, 1))
    assert (glance.sure(probabilities, np.arange(1000) >= 998) or 0) > 0.9


def test_the_gain_is_that_of_both_together() -> None:
    assert glance.gain(4.0, 1.0) == 4.0
    assert glance.gain(4.0, 0.0) == pytest.approx(0.8)
    assert glance.gain(2.5, 0.88) == pytest.approx(1 / (0.4 + 0.12))


def test_easy_pictures_are_its_own_and_the_others_are_left_as_they_are(look: Look, whole: Calibration) -> None:
    seen, labels = pictures(900, 60, 0.06)
    other = Outputs(np.full((60, 2), 7.0), np.full((60, 3), 0.5))
    found = look.merged(other, whole, seen, "test")
    easy = found.easy
    assert easy is not None
    assert found.novelty is not None
    assert 0.1 < easy.mean() < 1
    assert (found.logits[~easy] == 7).all()
    assert (found.embeddings[~easy] == 0.5).all()
    assert (found.answers[easy] == labels[easy]).all()
    np.testing.assert_allclose(found.novelty[~easy], whole.novelty.score(other.embeddings)[~easy])
    assert whole.probabilities(found)[easy].max(1).min() >= look.confidence  # on the whole network's temperature
    assert found.novelty[easy].max() <= whole.novelty_threshold


def test_unfamiliar_pictures_are_left_to_the_whole_network(look: Look, whole: Calibration) -> None:
    seen, _ = pictures(900, 20, 0.03)
    found = replace(look, limit=-1.0).merged(Outputs(np.zeros((20, 2)), np.zeros((20, 3))), whole, seen, "test")
    assert found.easy is not None
    assert not found.easy.any()


def test_firm_pictures_are_far_from_both_limits(look: Look) -> None:
    seen, _ = pictures(900, 20, 0.03)
    confidence = look._seen(seen, "")[2]
    at_the_edge = replace(look, confidence=float(confidence[0]), limit=10.0)
    assert at_the_edge.firmness(seen)[0] == 0
    assert (replace(look, confidence=0.0, limit=1e9).firmness(seen) > 0.5).all()


def test_it_comes_back_from_its_file_and_so_does_none(look: Look, tmp_path: Path) -> None:
    Look.save(look, tmp_path / "look.npz")
    again = Look.load(tmp_path / "look.npz")
    assert again is not None
    assert (again.backbone, again.confidence, again.limit) == (look.backbone, look.confidence, look.limit)
    np.testing.assert_array_equal(again.weight, look.weight)
    Look.save(None, tmp_path / "none.npz")
    assert Look.load(tmp_path / "none.npz") is None
