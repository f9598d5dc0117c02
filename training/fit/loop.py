"""The training loop: epochs over batches with validation, early stopping, and a checkpoint after every epoch."""

from __future__ import annotations

import copy
import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.common.files import replacing
from training.common.progress import Bar
from training.fit.distributed import ALONE, World

Batches = Callable[[int], Iterator[tuple[Tensor, Tensor]]]  # epoch -> (inputs, targets)
Validation = Callable[[], tuple[Tensor, Tensor]]  # -> logits, labels
HISTORY_COLUMNS = ("epoch", "phase", "lr", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy")


@dataclass
class Progress:
    """What a checkpoint keeps beside the states of model and optimiser."""

    phase: str = ""
    epoch: int = 0  # epochs finished in this phase
    best_loss: float = float("inf")
    best_accuracy: float = 0.0
    stale: int = 0  # epochs since the best one
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Phase:
    """One way of training `model` (all of it, its head, its last blocks), resumable at every epoch.

    `batches` must depend on the epoch only, so that a resumed run sees what an undisturbed one would have seen.
    In a world of several processes `batches` and `validation` give this one's share; the figures are those of all.
    """

    name: str
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler  # one step a batch
    batches: Batches
    validation: Validation
    epochs: int
    steps: int  # batches in an epoch
    patience: int
    label_smoothing: float
    checkpoint: Path
    averaged: torch.optim.swa_utils.AveragedModel | None = None  # weights that validation and the result use
    world: World = ALONE
    chunk: int = 0  # rows of a batch that go through at once, to save memory; 0: all. Not with batch norm in training

    def run(self, progress: Progress) -> Progress:
        """Train to the end, leaving the weights of the best epoch in `model`; continues from a checkpoint."""
        best = copy.deepcopy(self._result().state_dict())
        if progress.phase == self.name:
            best = self._restore()
        else:
            progress = Progress(self.name, history=progress.history)
        network = self.world.parallel(self.model)
        bar = Bar(total=self.epochs, initial=progress.epoch, desc=self.name, unit="epoch")
        while progress.epoch < self.epochs and progress.stale < self.patience:
            row = self._epoch(network, progress.epoch)
            progress.epoch += 1
            progress.stale += 1
            better = row["validation_loss"] < progress.best_loss
            if better:
                progress.stale = 0
                progress.best_loss, progress.best_accuracy = row["validation_loss"], row["validation_accuracy"]
                best = copy.deepcopy(self._result().state_dict())
            progress.history.append({"epoch": len(progress.history) + 1, "phase": self.name, **row})
            self._save(progress, best)
            bar.set_postfix(loss=f"{row['validation_loss']:.4f}", accuracy=f"{row['validation_accuracy']:.4f}")
            bar.update()
        bar.close()
        self.model.load_state_dict(best)
        return progress

    def _result(self) -> nn.Module:
        return self.model if self.averaged is None else self.averaged.module

    def _epoch(self, network: nn.Module, epoch: int) -> dict[str, Any]:
        sums = torch.zeros(1, 3, dtype=torch.float64)  # loss, right answers, pictures
        batches = islice(self.batches(epoch), self.steps)
        for inputs, targets in Bar(batches, f"{self.name} {epoch + 1}", self.steps, unit="batch", leave=False):
            logits, loss = self._gradient(network, inputs, targets)
            self.optimizer.step()
            self.scheduler.step()
            if self.averaged is not None:
                self.averaged.update_parameters(self.model)
            hard = targets if targets.ndim == 1 else targets.argmax(1)
            right = (logits.argmax(1) == hard).sum().item()
            sums += torch.tensor([[loss * len(inputs), right, len(inputs)]], dtype=torch.float64)
        self.world.same_buffers(self._result())
        sums, logits, labels = self.world.gathered(sums, *self.validation())
        loss_sum, correct, count = sums.sum(0).tolist()
        return self.world.agreed(
            {
                "lr": self.optimizer.param_groups[0]["lr"],
                "train_loss": loss_sum / count,
                "train_accuracy": correct / count,
                "validation_loss": functional.cross_entropy(logits, labels).item(),
                "validation_accuracy": (logits.argmax(1) == labels).float().mean().item(),
            }
        )

    def _gradient(self, network: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[Tensor, float]:
        """Put the gradient of a batch into the model; the logits and the mean loss."""
        self.optimizer.zero_grad(set_to_none=True)
        rows = self.chunk or len(inputs)
        found, total = [], 0.0
        for part, truth in zip(torch.split(inputs, rows), torch.split(targets, rows), strict=True):
            logits = network(part)
            loss = functional.cross_entropy(logits, truth, label_smoothing=self.label_smoothing)
            loss = loss * (len(part) / len(inputs))
            torch.autograd.backward(loss)
            found.append(logits.detach())
            total += loss.item()
        return torch.cat(found), total

    def _save(self, progress: Progress, best: dict[str, Any]) -> None:
        if not self.world.leads:
            return
        state = {
            "progress": vars(progress),
            "model": self.model.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "best": best,
        }
        save(state, self.checkpoint)

    def _restore(self) -> dict[str, Any]:
        state = self.world.agreed(torch.load(self.checkpoint, weights_only=True) if self.world.leads else {})
        self.model.load_state_dict(state["model"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        best: dict[str, Any] = state["best"]
        return best


def resume(checkpoint: Path) -> Progress:
    """The progress that `checkpoint` holds; none where it is missing, empty or cut off."""
    try:
        return Progress(**torch.load(checkpoint, weights_only=True)["progress"])
    except (FileNotFoundError, EOFError, RuntimeError, UnpicklingError):  # the latter: what torch finds damaged
        return Progress()


def save(state: Any, path: Path) -> None:
    """torch.save; `path` holds the former state or this one, never a part. OSError is behind its error when the disk is
    full."""
    with replacing(path) as part, part.open("wb") as file:  # torch's own writer does not say why it fails
        torch.save(state, file)


def write_history(history: list[dict[str, Any]], path: Path) -> None:
    """One CSV row an epoch; DVC plots and MLflow read it."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, HISTORY_COLUMNS)
        writer.writeheader()
        writer.writerows(history)


def read_history(path: Path) -> list[dict[str, Any]]:
    """The rows that `write_history` wrote, numbers as numbers."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: value if key == "phase" else float(value) for key, value in row.items()} for row in rows]
