"""int8 of a small network: most of it in int8, close to fp32, the same every time."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tests.drawing import drawing
from training.forward import onnx_bytes, runner
from training.quantise import channel_steps, feature_means, first_nodes, quantised

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


def test_two_neighbours_and_activations_fit_in_16_bits_signed() -> None:
    weights = np.random.default_rng(0).normal(size=(64, 30, 3, 3)).astype(np.float32)
    weights[0] = 0
    rounded = np.round(weights / channel_steps(weights)[:, None, None, None]).transpose(0, 2, 3, 1).reshape(64, -1)
    assert np.abs(rounded[:, :-1] + rounded[:, 1:]).max() * 255 <= 2**15 - 1
    assert 64 < np.abs(rounded).max(1)[1:].mean() <= 127  # better than 7 bits
    assert not rounded[0].any()


def test_a_depthwise_convolution_has_the_whole_range() -> None:
    weights = np.random.default_rng(0).normal(size=(8, 1, 3, 3)).astype(np.float32)
    rounded = np.round(weights / channel_steps(weights)[:, None, None, None])
    assert (np.abs(rounded).max((1, 2, 3)) == 127).all()


def test_all_but_the_first_convolutions_are_in_int8(int8: bytes) -> None:
    graph = onnx.load_from_string(int8).graph
    integers = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8}
    assert len(integers) >= 5
    kinds = [node.op_type for node in graph.node]
    assert "Clip" not in kinds  # rounding to 0..6 is the activation


def test_the_same_pictures_give_the_same_bytes(fp32: bytes, int8: bytes, pictures: np.ndarray) -> None:
    assert quantised(fp32, pictures[:16]) == int8


def test_the_first_sixteenth_is_left_and_one_at_least(fp32: bytes) -> None:
    network = onnx.load_from_string(fp32)
    names = first_nodes(network)
    assert sum(node.op_type == "Conv" for node in network.graph.node if node.name in names) == 1
