"""Training in several processes, on one machine or on many: who this one is, and its share of the work.

    torchrun --standalone --nproc-per-node 2 -m training.train     two processes on this machine; a GPU for each
    kubectl create -f k8s/jobs/train.yaml                          one pod on each of several machines

Every process holds the whole network and its own share of the pictures: it decodes them, computes their features and
gives its part of every batch; the gradients are averaged (Li et al. 2020, DistributedDataParallel), so that all keep
the same weights. Rank 0 alone writes checkpoints and results and shows progress. No disk needs to be shared.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partialmethod
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from training.common.errors import ExpectedError
from training.fit.device import pick_device

Item = TypeVar("Item")
Value = TypeVar("Value")


class DistributedError(ExpectedError):
    """So many processes cannot share this work; the message says how many can."""


@dataclass(frozen=True)
class World:
    """The processes that train together, and the number of this one among them."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's part of `items`: every `size`-th, so that items sorted by class are shared evenly."""
        if len(items) < self.size:
            raise DistributedError(f"{self.size} processes cannot share {len(items)} pictures: start fewer")
        return items[self.rank :: self.size]

    def batch(self, size: int) -> int:
        """This process's part of a batch of `size`; batch norm needs two pictures."""
        if size < 2 * self.size and self.size > 1:
            raise DistributedError(f"{self.size} processes need batches of {2 * self.size}: set train.batch_size to it")
        return size // self.size

    def parallel(self, model: nn.Module) -> nn.Module:
        """`model` with gradients that are averaged over all processes; starts from the weights of rank 0."""
        return model if self.size == 1 else DistributedDataParallel(model)

    def same_buffers(self, model: nn.Module) -> None:
        """Give `model` the buffers of rank 0: running statistics are of the pictures that a process has seen."""
        if self.size > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, 0)

    def gathered(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Each tensor with the rows of all processes, in the order of their ranks."""
        if self.size == 1:
            return tensors
        parts: list[Any] = [None] * self.size
        distributed.all_gather_object(parts, tensors)
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))

    def agreed(self, value: Value) -> Value:
        """The `value` of rank 0, in all processes."""
        values = [value]
        if self.size > 1:
            distributed.broadcast_object_list(values, 0)
        return values[0]


ALONE = World()


@contextmanager
def joined() -> Iterator[World]:
    """The processes that torchrun started, this one among them; a world of one without torchrun.

    Raises DistributedError where there is no device for this process.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    distributed.init_process_group(_backend())
    world = World(distributed.get_rank(), distributed.get_world_size())
    if not world.leads:
        tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)  # type: ignore[method-assign,assignment]
    try:
        yield world
    finally:
        distributed.destroy_process_group()


def _backend() -> str:
    """How the processes talk: NCCL between GPUs, of which each takes its own, gloo between CPUs."""
    kind = pick_device().type
    if kind == "cpu":
        return "gloo"
    if kind != "cuda":
        raise DistributedError(f"several processes cannot train on {kind}: set DEVICE=cpu")
    local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= gpus:
        raise DistributedError(f"there are {gpus} GPUs: start one process for each, or set DEVICE=cpu")
    torch.cuda.set_device(local)
    return "nccl"
