"""int8 gives the same answers on a processor with AVX2 alone, whose instruction for it saturates, as on a later one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.drawing import drawing
from training.evaluation.shortcuts import quantise
from training.fit.forward import onnx_bytes

ROOT = Path(__file__).parents[3]
SIZE = 32
RUN = """
import sys
import numpy as np
from training.fit.forward import runner
np.save(sys.argv[3], runner(open(sys.argv[1], "rb").read())(np.load(sys.argv[2])))
"""


pytestmark = [pytest.mark.torch, pytest.mark.needs("vnni", "cc")]


class Wide(nn.Module):
    """Pictures uint8 [N, 32, 32, 3] to features [N, 64, 16, 16]: pointwise, depthwise and whole convolutions."""

    def __init__(self) -> None:
        super().__init__()
        shapes = [(3, 64, 3, 1), (64, 64, 1, 1), (64, 64, 3, 64), (64, 64, 1, 1), (64, 64, 3, 1), (64, 64, 1, 1)]
        layers: list[nn.Module] = []
        for number, (given, made, side, groups) in enumerate(shapes):
            layers += [nn.Conv2d(given, made, side, stride=2 if number == 0 else 1, padding=side // 2, groups=groups)]
            layers += [nn.ReLU6()]
        self.layers = nn.Sequential(*layers)
        for each in self.layers:
            if isinstance(each, nn.Conv2d):  # alike and positive: the sums of neighbours are the largest there can be
                nn.init.uniform_(each.weight, 0.7 / each.weight[0].numel(), 1.0 / each.weight[0].numel())

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layers(pictures.permute(0, 3, 1, 2).float() / 42)
        return found


def on_both(network: bytes, pictures: np.ndarray, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features by this processor, and by the same one with AVX2 and nothing later."""
    library, model = folder / "avx2.so", folder / "model.onnx"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, ROOT / "tests/load/avx2.c"], check=True)
    model.write_bytes(network)
    np.save(folder / "pictures.npy", pictures)
    for name, more in (("here", {}), ("avx2", {"LD_PRELOAD": str(library)})):
        command: list[str | Path] = [sys.executable, "-c", RUN, model, folder / "pictures.npy", folder / f"{name}.npy"]
        subprocess.run(command, check=True, cwd=ROOT, env=os.environ | more)
    return np.load(folder / "here.npy"), np.load(folder / "avx2.npy")


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.stack([np.asarray(drawing(seed, SIZE, SIZE)) for seed in range(8)])


@pytest.fixture(scope="module")
def fp32() -> bytes:
    torch.manual_seed(0)
    return onnx_bytes(Wide(), SIZE, ["features"])


def test_the_same_features_with_avx2(fp32: bytes, pictures: np.ndarray, tmp_path: Path) -> None:
    here, avx2 = on_both(quantise.quantised(fp32, pictures), pictures, tmp_path)
    assert np.linalg.norm(here - avx2) <= 1e-3 * np.linalg.norm(here)


def test_with_eight_bits_for_every_weight_they_would_differ(
    fp32: bytes, pictures: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantise, "weight_steps", lambda network: {})
    here, avx2 = on_both(quantise.quantised(fp32, pictures), pictures, tmp_path)
    assert np.linalg.norm(here - avx2) > 0.05 * np.linalg.norm(here)
