"""What a frozen backbone makes of the pictures of a split: averages of its levels, or the map before its last blocks.

Computed once for each view and cached on disk.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.cache import CACHE_FOLDER, stored
from data.manifest import Manifest, array_writer, decoded, decoded_key
from training.fit import nothing
from training.fit.architectures import Classifier, Trunk
from training.fit.augment import View
from training.fit.distributed import World
from training.fit.forward import Network, Run, ready, run_batches
from training.fit.head import Features
from training.model.preprocess import Preprocessing

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Decoded pictures uint8 [N, size, size, 3], labels int64 [N] and groups int64 [N], in which near duplicates have
    the same number: this process's share of a split."""

    pictures: NDArray[np.uint8]
    labels: Tensor
    groups: Tensor
    key: str

    @classmethod
    def read(cls, manifest: Manifest, name: str, how: Preprocessing, world: World) -> Split:
        rows = world.share(manifest.split(name))
        labels, groups = (torch.from_numpy(numbers) for numbers in (manifest.labels(rows), manifest.groups(rows)))
        return cls(decoded(rows, how), labels, groups, decoded_key(rows, how))

    @classmethod
    def of_nothing(cls, size: int) -> Split:
        """Pictures of nothing (training.fit.nothing), all with the label 0, which means nothing."""
        pictures = nothing.pictures(size)
        count = len(pictures)
        return cls(pictures, torch.zeros(count, dtype=torch.long), torch.arange(count), f"nothing {size}")


class Front(nn.Module):
    """The blocks of a backbone before the last ones: their map and the averages of `levels`, in one row [N, ...]."""

    def __init__(self, blocks: nn.Sequential, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.blocks = blocks
        self.levels = levels

    def forward(self, pictures: Tensor) -> Tensor:
        parts, x = [], pictures
        for place, block in enumerate(self.blocks):
            x = block(x)
            if place in self.levels:
                parts.append(x.mean((2, 3)))
        return torch.cat([x.flatten(1), *parts], 1)


class Tail(nn.Module):
    """The last blocks and the head, on the rows that `Front` gives; `shape` is that of its map [C, h, w]."""

    def __init__(self, blocks: nn.Sequential, levels: tuple[int, ...], head: nn.Linear, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.trunk = Trunk(blocks, levels, pooled=True)
        self.head = head
        self.shape = shape

    def forward(self, rows: Tensor) -> Tensor:
        size = int(np.prod(self.shape))
        features = self.trunk(rows[:, :size].reshape(-1, *self.shape))
        logits: Tensor = self.head(torch.cat([rows[:, size:], features], 1))
        return logits


@dataclass(frozen=True)
class Frozen:
    """A backbone that stays as it is; `name` tells it from others in the cache, `size` is the side of pictures."""

    model: Classifier
    name: str
    size: int
    device: torch.device
    world: World
    runs: dict[str, tuple[Run, int]] = field(default_factory=dict)  # what is ready, of the kind that was last asked for

    def pooled(self, split: Split, view: str, how: View, levels: tuple[int, ...], rows: Rows | None = None) -> Features:
        """Averages [N, D] of `levels`, of the pictures at `rows` or of all, seen through the view of that name."""
        return self._cached(split, view, how, Trunk(self.model.backbone, levels, pooled=True), f"pooled {levels}", rows)

    def fronts(self, split: Split, view: str, how: View, depth: int, levels: tuple[int, ...]) -> Features:
        """What `Front` gives [N, ...] without the last `depth` blocks."""
        blocks = self.model.backbone[: len(self.model.backbone) - depth]
        return self._cached(split, view, how, Front(blocks, levels), f"front {depth} {levels}", None)

    def _cached(self, split: Split, view: str, how: View, module: nn.Module, kind: str, rows: Rows | None) -> Features:
        chosen = np.arange(len(split.pictures)) if rows is None else rows
        identity = f"{split.key} {self.name} {kind} {view} {chosen.tolist() if rows is not None else 'all'}"
        path = CACHE_FOLDER / "features" / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.npy"

        def read(block: slice) -> NDArray[np.uint8]:
            return np.ascontiguousarray(how(split.pictures[chosen[block]]))

        def fill(path: Path) -> None:
            if kind not in self.runs:
                self.runs.clear()  # one at a time, for its memory
                self.runs[kind] = ready(Network(self.model.normalise, module).eval(), self.device, self.size)
            run, streams = self.runs[kind]
            with array_writer(path, len(chosen)) as write:
                for start, found in run_batches(run, read, len(chosen), f"features, {view}", streams):
                    write(start, found.astype(np.float16))

        features: Features = stored(path, fill)
        return features
