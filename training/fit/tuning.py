"""The last blocks of a pretrained backbone, trained after its head: within a budget, and kept only if that was better.

The blocks before them stay frozen; their outputs are computed once for each view. The head starts where it was solved,
so that the first steps do not spoil the blocks (Kumar et al. 2022).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training import params
from training.fit.architectures import Recipe
from training.fit.augment import CHANGES, PLAIN, View, named, plain, shuffled
from training.fit.choice import Trial, log_loss
from training.fit.forward import Network, forward
from training.fit.head import Features
from training.fit.loop import Batches, Phase, Progress, Validation
from training.fit.pooled import Frozen, Split, Tail
from training.fit.solve import CHANGED, Solved
from training.fit.temperature import fit_temperature

EPOCHS = (30, 20, 15, 12, 10, 8, 6, 5, 4, 3, 2)  # that a budget may come to; fewer are not worth a start
VALIDATION_BATCH = 32
CHUNK = 16  # pictures that pass a CPU at once: what the layers keep for the way back takes 10 MB each

MakePhase = Callable[[str, Tail, Batches, Validation, int, float], Phase]


@dataclass
class Tuning:
    """`run` leaves the better weights in the model and says in `account` what it took and what more would bring."""

    frozen: Frozen
    solved: Solved
    train: Split
    validation: Split
    phase: MakePhase
    recipe: Recipe
    settings: params.Train
    account: dict[str, Any] = field(default_factory=dict)

    def run(self, progress: Progress) -> Progress:
        """Train the last blocks and the head, unless the budget is too small."""
        started = time.monotonic()
        top = self._top()
        epochs = self.frozen.world.agreed(self.recipe.epochs or self._affordable(top))
        if not epochs:
            return progress
        head = progress
        before = self._trial()
        kept = copy.deepcopy(self.frozen.model.state_dict())
        phase = self.phase("finetune", top, self._batches(), self._validate(top), epochs, self.recipe.lr)
        after = replace(phase, chunk=self._chunk).run(progress)
        won = self.frozen.world.agreed(self._trial().beats(before))
        losses = [row["validation_loss"] for row in after.history if row["phase"] == "finetune"]
        self.account |= {"epochs": epochs, "won": won, "minutes": (time.monotonic() - started) / 60}
        self.account["said"] = _said(won, losses, epochs)
        if self.frozen.world.leads:
            print(f"fine-tuning: {self.account['said']}")
        if not won:
            self.frozen.model.load_state_dict(kept)
            after.best_loss, after.best_accuracy = head.best_loss, head.best_accuracy
        return after

    @property
    def _depth(self) -> int:
        return min(self.settings.finetune_blocks, len(self.frozen.model.backbone))

    @property
    def _chunk(self) -> int:
        return CHUNK if self.frozen.device.type == "cpu" else self.recipe.batch_size

    def _levels(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Those before the last blocks, and those among them, counted from their first."""
        start = len(self.frozen.model.backbone) - self._depth
        levels = self.solved.levels
        return tuple(at for at in levels if at < start), tuple(at - start for at in levels if at >= start)

    @torch.no_grad()
    def _top(self) -> Tail:
        model, size = self.frozen.model, self.frozen.size
        front = model.backbone[: len(model.backbone) - self._depth].eval()
        shape = front(model.normalise(torch.zeros(1, 3, size, size, device=self.frozen.device))).shape[1:]
        top = Tail(model.backbone[-self._depth :], self._levels()[1], model.head, tuple(shape))
        # Batch norm keeps the statistics it was trained with: a few thousand pictures give no better ones.
        return top.to(self.frozen.device).eval()

    def _affordable(self, top: Tail) -> int:
        """Epochs that fit into train.minutes, by the time of a step; 0, with a line that says so, if too few do."""
        scratch = copy.deepcopy(top)
        width = int(np.prod(top.shape)) + top.head.in_features - sum(self._tail_widths())
        rows = torch.zeros(self._chunk, width, device=self.frozen.device)
        took = []
        for _ in range(4):
            begun = time.monotonic()
            torch.autograd.backward(functional.cross_entropy(scratch(rows), torch.zeros(len(rows), dtype=torch.long)))
            took.append(time.monotonic() - begun)
        epoch = min(took) * len(self.train.labels) / len(rows) / 60
        epochs = next((count for count in EPOCHS if count * epoch <= self.settings.minutes), 0)
        if not epochs:
            said = f"not tried: two epochs take about {2 * epoch:.1f} minutes, more than train.minutes"
            self.account |= {"epochs": 0, "won": False, "said": said}
            if self.frozen.world.leads:
                print(f"fine-tuning: {said}")
        return epochs

    def _tail_widths(self) -> list[int]:
        start = len(self.frozen.model.backbone) - self._depth
        return self.frozen.model.widths(self.frozen.size, tuple(at for at in self.solved.levels if at >= start))

    def _fronts(self, split: Split, name: str, how: View) -> Features:
        return self.frozen.fronts(split, name, how, self._depth, self._levels()[0])

    def _batches(self) -> Batches:
        views = [self._fronts(self.train, name, named(name)) for name in self.solved.choice.candidate.views]
        labels, world, device = self.train.labels, self.frozen.world, self.frozen.device

        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            rng = np.random.default_rng((self.settings.seed + world.rank, epoch, 1))
            size = world.batch(self.recipe.batch_size)
            for batch in shuffled(len(labels), size, self.settings.seed + world.rank, epoch):
                seen = rng.integers(len(views), size=len(batch))
                rows = np.stack([views[view][row] for view, row in zip(seen, batch, strict=True)])
                yield torch.from_numpy(rows).to(device).float(), labels[batch].to(device)

        return batches

    def _validate(self, top: Tail) -> Validation:
        rows = self._fronts(self.validation, PLAIN, plain)

        def validate() -> tuple[Tensor, Tensor]:
            with torch.inference_mode():
                parts = np.array_split(rows, -(-len(rows) // VALIDATION_BATCH))
                logits = [top(torch.tensor(part).to(self.frozen.device).float()).cpu() for part in parts]
            return torch.cat(logits), self.validation.labels

        return validate

    def _trial(self) -> Trial:
        """What the model as it is comes to on the validation pictures, plain and changed."""
        logits, labels = self._logits(PLAIN, plain, 1)
        temperature = fit_temperature(logits, labels)
        step = max(1, len(labels) // CHANGED)
        changed = [self._logits(name, how, step) for name, how in CHANGES.items()]
        losses = np.mean([log_loss(seen / temperature, truth) for seen, truth in changed], axis=0)
        return Trial(0.0, log_loss(logits / temperature, labels), losses, float((logits.argmax(1) != labels).mean()))

    def _logits(self, name: str, how: View, step: int) -> tuple[Any, Any]:
        model, pictures = self.frozen.model, self.validation.pictures[::step]
        network = Network(lambda x: x, model).eval()
        parts = forward(
            network,
            self.frozen.device,
            lambda rows: np.ascontiguousarray(how(pictures[rows])),
            len(pictures),
            self.frozen.size,
            f"validation, {name}",
        )
        mine = torch.from_numpy(np.concatenate([found for _, found in parts]))
        logits, labels = self.frozen.world.gathered(mine, self.validation.labels[::step])
        return logits.double().numpy(), labels.numpy()


def _said(won: bool, losses: list[float], epochs: int) -> str:
    """What came of it, and what more time would probably bring."""
    kept = "kept, it is better than the head alone" if won else "not kept, the head alone is as good"
    best = int(np.argmin(losses)) + 1
    if best >= len(losses) - 1 and len(losses) == epochs:
        return f"{kept}; validation was still getting better after {epochs} epochs, so more train.minutes may help"
    return f"{kept}; validation was best after {best} of {len(losses)} epochs, so more time would hardly help"
