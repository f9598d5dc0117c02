"""A process's share of the work; what several processes do together is in tests/pipeline/test_together.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.fit.distributed import ALONE, DistributedError, World, joined

pytestmark = pytest.mark.torch


def test_without_torchrun_there_is_a_world_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    model, rows = nn.Linear(2, 2), torch.ones(3, 2)
    with joined() as world:
        assert world == ALONE
        assert world.leads
        assert world.parallel(model) is model
        assert world.gathered(rows) == (rows,)
        assert world.agreed("word") == "word"
        assert world.batch(1) == 1


def test_shares_are_even_and_miss_nothing() -> None:
    items = ["cat"] * 5 + ["dog"] * 6
    shares = [World(rank, 3).share(items) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == items
    assert {len(share) for share in shares} == {3, 4}
    assert all({"cat", "dog"} == set(share) for share in shares)


def test_too_many_processes_are_told() -> None:
    with pytest.raises(DistributedError, match="4 processes cannot share 3 pictures: start fewer"):
        World(0, 4).share("abc")
    with pytest.raises(DistributedError, match=r"set train\.batch_size"):
        World(0, 4).batch(7)
    assert World(0, 4).batch(8) == 2


@pytest.mark.parametrize(("kind", "message"), [("mps", "set DEVICE=cpu"), ("cuda", "one process for each")])
def test_a_device_that_cannot_be_shared_is_told(kind: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr("training.fit.distributed.pick_device", lambda: torch.device(kind))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DistributedError, match=message), joined():
        pass
