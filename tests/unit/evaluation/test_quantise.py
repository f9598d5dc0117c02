"""int8 of a small network: most of it in int8, close to fp32, the same every time."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from tests.drawing import drawing
from training.evaluation.shortcuts.quantise import channel_steps, feature_means, first_nodes, quantised
from training.fit.forward import onnx_bytes, runner

pytestmark = pytest.mark.torch

SIZE = 32


class Small(nn.Module):
    """Pictures uint8 [N, 32, 32, 3] to features [N, 16, 8, 8], through six convolutions."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(6):
            layers += [nn.Conv2d(16 if number else 3, 16, 3, padding=1, stride=2 if number in (1, 3) else 1)]
            layers += [nn.ReLU6() if number % 2 else nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layers((pictures.permute(0, 3, 1, 2).float() - 127) / 128)
        return found


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.stack([np.asarray(drawing(seed, SIZE, SIZE)) for seed in range(24)])


@pytest.fixture(scope="module")
def fp32() -> bytes:
    torch.manual_seed(0)
    return onnx_bytes(Small(), SIZE, ["features"])


@pytest.fixture(scope="module")
def int8(fp32: bytes, pictures: np.ndarray) -> bytes:
    return quantised(fp32, pictures[:16])


def test_it_says_nearly_the_same(fp32: bytes, int8: bytes, pictures: np.ndarray) -> None:
    wanted, found = runner(fp32)(pictures[16:]), runner(int8)(pictures[16:])
    assert found.shape == wanted.shape
    error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    assert 0 < error < 0.1


def test_on_average_it_says_the_same(fp32: bytes, int8: bytes, pictures: np.ndarray) -> None:
    difference = feature_means(int8, pictures[:16]) - feature_means(fp32, pictures[:16])
    assert np.abs(difference).max() < 1e-5


def neighbours(weights: np.ndarray) -> float:
    """The largest sum of two weights [O, I, h, w] that lie beside one another when they are multiplied."""
    rows = weights.transpose(0, 2, 3, 1).reshape(len(weights), -1)
    return float(np.abs(rows[:, :-1] + rows[:, 1:]).max())


def test_two_neighbours_and_activations_fit_in_16_bits_signed() -> None:
    weights = np.random.default_rng(0).normal(size=(64, 30, 3, 3)).astype(np.float32)
    weights[0] = 0
    rounded = np.round(weights / channel_steps(weights, depthwise=False)[:, None, None, None])
    assert neighbours(rounded) * 255 <= 2**15 - 1
    assert 64 < np.abs(rounded).max((1, 2, 3))[1:].mean() <= 127  # better than 7 bits
    assert not rounded[0].any()


def test_a_convolution_with_one_input_channel_is_not_depthwise() -> None:
    weights = np.ones((16, 1, 3, 3), dtype=np.float32)
    rounded = np.round(weights / channel_steps(weights, depthwise=False)[:, None, None, None])
    assert neighbours(rounded) * 255 <= 2**15 - 1


def test_the_weights_of_the_network_are_rounded_so(int8: bytes) -> None:
    tensors = [numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(int8).graph.initializer]
    weights = [each.astype(int) for each in tensors if each.dtype == np.int8 and each.ndim == 4]
    assert len(weights) == 5
    assert max(map(neighbours, weights)) * 255 <= 2**15 - 1


def test_a_depthwise_convolution_has_the_whole_range() -> None:
    weights = np.random.default_rng(0).normal(size=(8, 1, 3, 3)).astype(np.float32)
    rounded = np.round(weights / channel_steps(weights, depthwise=True)[:, None, None, None])
    assert (np.abs(rounded).max((1, 2, 3)) == 127).all()


def test_activations_are_in_int8_too(int8: bytes) -> None:
    kinds = [node.op_type for node in onnx.load_from_string(int8).graph.node]
    assert "Clip" not in kinds  # rounding to 0..6 is the activation


def test_the_same_pictures_give_the_same_bytes(fp32: bytes, int8: bytes, pictures: np.ndarray) -> None:
    assert quantised(fp32, pictures[:16]) == int8


@pytest.mark.parametrize(("convolutions", "kept"), [(6, 1), (49, 3)])
def test_the_first_sixteenth_is_left_and_one_at_least(convolutions: int, kept: int) -> None:
    nodes = [helper.make_node("Conv", [f"{n}", "w"], [f"{n + 1}"], name=f"conv{n}") for n in range(convolutions)]
    network = helper.make_model(helper.make_graph(nodes, "chain", [], []))
    assert first_nodes(network) == [f"conv{n}" for n in range(kept)]
