"""What torchrun starts in test_distributed.py: this process's part of training each project that is named.

One start for all of them, since importing torch takes longer than they do.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from training import params
from training.distributed import joined
from training.train import train

FROM_SCRATCH = {"architecture": "cnn", "size": 32, "epochs": 8, "batch_size": 16}
FINE_TUNED = {"size": 64, "epochs": 12, "batch_size": 32, "finetune_blocks": 2, "finetune_epochs": 1}
RECIPES = {"scratch": FROM_SCRATCH, "tuned": FINE_TUNED}


def settings(folder: Path) -> params.Train:
    """The recipe that goes by the folder's name."""
    return params.load(folder / "params.yaml").train.model_copy(update=RECIPES[folder.name])


def main() -> None:
    with joined() as world:
        for folder in map(Path, sys.argv[1:]):
            own = folder / f"rank{world.rank}"  # as on machines of a cluster: no folder is shared
            os.chdir(own)
            train(settings(folder), world)


if __name__ == "__main__":
    main()
