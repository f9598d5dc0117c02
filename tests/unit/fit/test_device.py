"""DEVICE decides; a wrong one is told."""

from __future__ import annotations

import pytest
import torch

from training.fit.device import DeviceError, pick_device, set_up

pytestmark = pytest.mark.torch


def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICE", "cpu")
    assert pick_device() == torch.device("cpu")


def test_without_it_the_best_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEVICE", raising=False)
    assert (pick_device().type == "cuda") == torch.cuda.is_available()


@pytest.mark.parametrize("name", ["tpu9", "cuda:77"])
def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("DEVICE", name)
    with pytest.raises(DeviceError, match=f"DEVICE={name} cannot be used here.*DEVICE=cpu"):
        pick_device()


def test_set_up_seeds_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICE", "cpu")
    set_up(7)
    first = torch.rand(3)
    set_up(7)
    assert torch.equal(first, torch.rand(3))
