"""What torchrun starts in test_together.py: a process's part of a sum in a folder, then of training each project named.

One start for all of them, since importing torch takes longer than they do.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training import params
from training.fit.distributed import World, joined
from training.train import train

FROM_SCRATCH = {"architecture": "cnn", "image_size": 32, "epochs": 8, "batch_size": 16}
FINE_TUNED = {
    "image_size": 64,
    "batch_size": 80,
    "epochs": 2,
    "lr": 0.00003,
    "finetune_blocks": 2,
    "finetune_above": 0.0,
}
RECIPES: dict[str, dict[str, Any]] = {"scratch": FROM_SCRATCH, "tuned": FINE_TUNED}


def settings(folder: Path) -> params.Train:
    """The recipe that goes by the folder's name."""
    return params.load(folder / "params.yaml").train.model_copy(update=RECIPES[folder.name])


def averaged(world: World) -> list[float]:
    """Weights of a linear network after some steps of plain gradient descent on this process's share of fixed data."""
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(12, 5, generator=random)
    mine = torch.stack(list(world.share(list(rows))))
    torch.manual_seed(world.rank)  # rank 0's start counts
    model = nn.Linear(5, 1)
    network = world.parallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        torch.autograd.backward((network(mine) - mine[:, :1] ** 2).square().mean())
        optimizer.step()
    return model.weight.flatten().tolist()


def main() -> None:
    with joined() as world:
        Path(sys.argv[1], f"averaged{world.rank}.json").write_text(json.dumps(averaged(world)))
        for folder in map(Path, sys.argv[2:]):
            own = folder / f"rank{world.rank}"  # as on machines of a cluster: no folder is shared
            os.chdir(own)
            train(settings(folder), world)


if __name__ == "__main__":
    main()
