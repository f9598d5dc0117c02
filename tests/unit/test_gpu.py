"""The table of tests/load/gpu.sh, of two providers that are here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.load import gpu
from tests.tiny import tiny_model_folder


def test_every_batch_has_a_row_and_the_same_provider_says_the_same(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model")
    table = gpu.compared(folder, ("CPUExecutionProvider", "CPUExecutionProvider"), seconds=0.001).splitlines()
    batches = [line.split()[0] for line in table if line.split()[0].isdigit()]
    assert batches == [str(batch) for batch in gpu.BATCHES]
    assert all(line.split()[-1] == "0" for line in table[-len(batches) :])


def test_a_machine_without_a_gpu_is_told(tmp_path: Path) -> None:
    with pytest.raises(gpu.GpuError, match="ONNX Runtime has no NoSuchExecutionProvider here: install onnxruntime-gpu"):
        gpu.compared(tiny_model_folder(tmp_path / "model"), ("NoSuchExecutionProvider", "CPUExecutionProvider"))
