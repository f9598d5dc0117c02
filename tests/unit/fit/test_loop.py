"""The loop on a small convex problem: it learns, stops early, and goes on where it was interrupted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training.common import disk
from training.fit.augment import shuffled
from training.fit.loop import Phase, Progress, read_history, resume, save, write_history

pytestmark = pytest.mark.torch

X = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


class Interrupted(Exception):
    """Stands for a kill in the middle of an epoch."""


def phase(checkpoint: Path, stop_in: int | None = None, epochs: int = 6, patience: int = 9) -> Phase:
    torch.manual_seed(0)
    model = nn.Linear(5, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=epochs * 4)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for number, batch in enumerate(shuffled(64, 16, 1, epoch)):
            if epoch == stop_in and number == 2:
                raise Interrupted
            yield X[batch], Y[batch]

    def validation() -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            return model(X), Y

    return Phase("test", model, optimizer, scheduler, batches, validation, epochs, 4, patience, 0.0, checkpoint)


def weight(run: Phase) -> Tensor:
    return run.model.get_parameter("weight").detach()


def test_it_learns(tmp_path: Path) -> None:
    done = phase(tmp_path / "c.pth", epochs=20).run(Progress())
    assert done.best_accuracy > 0.95
    assert done.history[-1]["validation_loss"] < done.history[0]["validation_loss"]
    assert [row["epoch"] for row in done.history] == list(range(1, 21))


@pytest.mark.parametrize("stop_in", [1, 3, 5])
def test_an_interrupted_run_ends_as_an_undisturbed_one(tmp_path: Path, stop_in: int) -> None:
    undisturbed = phase(tmp_path / "a.pth")
    expected = undisturbed.run(Progress())
    with pytest.raises(Interrupted):
        phase(tmp_path / "b.pth", stop_in).run(Progress())
    again = phase(tmp_path / "b.pth")
    done = again.run(resume(tmp_path / "b.pth"))
    assert done.history == expected.history
    assert torch.equal(weight(again), weight(undisturbed))


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_batches_in_chunks_come_to_the_same(tmp_path: Path, chunk: int) -> None:
    """Up to rounding, as gradients are added in another order."""
    whole, parts = phase(tmp_path / "whole.pth"), replace(phase(tmp_path / "parts.pth"), chunk=chunk)
    expected, found = whole.run(Progress()), parts.run(Progress())
    torch.testing.assert_close(weight(parts), weight(whole))
    assert [row["train_loss"] for row in found.history] == pytest.approx(
        [row["train_loss"] for row in expected.history]
    )


def test_it_stops_when_validation_gets_no_better(tmp_path: Path) -> None:
    stuck = phase(tmp_path / "c.pth", epochs=50, patience=3)
    stuck.validation = lambda: (torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]))
    assert len(stuck.run(Progress()).history) == 4


def test_the_best_epoch_is_kept(tmp_path: Path) -> None:
    losses = iter([1.0, 3.0, 0.2, 2.0, 2.5, 2.5])
    seen: list[Tensor] = []
    run = phase(tmp_path / "c.pth")

    def validation() -> tuple[Tensor, Tensor]:
        seen.append(weight(run).clone())
        return torch.tensor([[0.0, next(losses)]]), torch.tensor([0])

    run.validation = validation
    run.run(Progress())
    assert torch.equal(weight(run), seen[2])


def test_no_checkpoint_means_no_progress(tmp_path: Path) -> None:
    assert resume(tmp_path / "none.pth") == Progress()


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_checkpoint_that_was_cut_off_is_none(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.pth"
    phase(path, epochs=1).run(Progress())
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert resume(path) == Progress()


def test_history_survives_the_file(tmp_path: Path) -> None:
    history = phase(tmp_path / "c.pth").run(Progress()).history
    write_history(history, tmp_path / "history.csv")
    assert read_history(tmp_path / "history.csv") == history


@pytest.mark.needs("dev-full")
def test_a_full_disk_keeps_the_former_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    save({"epoch": 1}, path)
    (tmp_path / f".a.pth.{os.getpid()}.part").symlink_to("/dev/full")
    with pytest.raises((OSError, RuntimeError)) as error:
        save({"epoch": 2, "weights": torch.zeros(100_000)}, path)
    assert disk.is_full(error.value)
    assert list(tmp_path.iterdir()) == [path]
    assert torch.load(path, weights_only=True) == {"epoch": 1}
