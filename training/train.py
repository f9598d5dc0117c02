"""Train the classifier: manifest -> models/best_model.pth (state dict of the best epoch) and models/history.csv.

A pretrained backbone stays frozen: its features are computed once and cached, then the head trains on them in
seconds, and on request its last blocks after it. An architecture without weights trains as a whole. Under torchrun
several processes share the pictures and every batch (training/fit/distributed.py).
Measured results stand in the recipe table of README.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from data.manifest import CACHE_FOLDER, Manifest, array_writer, decoded, decoded_key
from training import params
from training.common.command import run_command
from training.common.source import commit
from training.fit import distributed
from training.fit.architectures import Recipe, build, recipe
from training.fit.augment import ENLARGED_VIEWS, VIEWS, Augmented, View, plain, shuffled, to_channels
from training.fit.device import set_up
from training.fit.distributed import World
from training.fit.forward import Network, forward
from training.fit.loop import Batches, Phase, Progress, Validation, resume, save, write_history
from training.fit.outputs import HISTORY_FILE, SUMMARY_FILE, WEIGHTS_FILE
from training.model.preprocess import Preprocessing

VALIDATION_BATCH = 32

Features = NDArray[np.float32]


@dataclass(frozen=True)
class Split:
    """Decoded pictures uint8 [N, size, size, 3] and labels int64 [N]: this process's share of a split."""

    pictures: NDArray[np.uint8]
    labels: Tensor
    key: str

    @classmethod
    def read(cls, manifest: Manifest, name: str, how: Preprocessing, world: World) -> Split:
        rows = world.share(manifest.split(name))
        return cls(decoded(rows, how), torch.from_numpy(manifest.labels(rows)), decoded_key(rows, how))


def preprocessing(size: int) -> Preprocessing:
    """The middle 7/8 of the picture, as the ImageNet weights were evaluated."""
    return Preprocessing(size, round(size * 8 / 7), "bilinear")


class Trainer:
    """One training run; `run` leaves the weights of its best epoch (of a head alone: the last) in `model`."""

    def __init__(self, settings: params.Train, manifest: Manifest, world: World = distributed.ALONE) -> None:
        self.settings = settings
        self.manifest = manifest
        self.world = world
        self.device = set_up(settings.seed)
        self.model = build(settings.architecture, settings.weights, len(manifest.classes)).to(self.device)
        short_side = np.median([min(row.width, row.height) for row in manifest.split("train")])
        self.recipe: Recipe = recipe(settings, self.model, float(short_side))
        self.how = preprocessing(self.recipe.image_size)
        self.batch_size = world.batch(self.recipe.batch_size)
        self.seed = settings.seed + world.rank  # of order and augmentation; the start weights are the same everywhere
        seen = decoded_key(manifest.split("train"), self.how)
        identity = f"{manifest.sha256} {settings.model_dump_json()} {self.recipe} {world.size} {seen}"
        self.checkpoint = CACHE_FOLDER / "train" / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.pth"

    def run(self) -> Progress:
        progress = self.world.agreed(resume(self.checkpoint))
        if progress.epoch and self.world.leads:
            print(f"continuing an interrupted run after epoch {len(progress.history)}")
        if self.model.pretrained:
            return self._transfer(progress)
        return self._whole(progress)

    def _transfer(self, progress: Progress) -> Progress:
        depth = self.settings.finetune_blocks
        if progress.phase != "finetune":
            progress = self._on_features("head", nn.Sequential(), self.recipe.epochs, self.recipe.lr, progress)
        if depth and self.settings.finetune_epochs:
            tail = self.model.backbone[-depth:]
            epochs, lr = self.settings.finetune_epochs, self.recipe.finetune_lr
            progress = self._on_features("finetune", tail, epochs, lr, progress)
        return progress

    def _on_features(self, name: str, tail: nn.Sequential, epochs: int, lr: float, progress: Progress) -> Progress:
        """Train `tail` and the head on cached outputs of the frozen blocks before them."""
        frozen = self.model.backbone[: len(self.model.backbone) - len(tail)]
        train, validation = (self._split(name, self.how) for name in ("train", "validation"))
        pooled = not len(tail)
        views = ENLARGED_VIEWS if self.recipe.enlarges else VIEWS
        features = [self._view(train, frozen, view, pooled) for view in views]
        held_out = self._view(validation, frozen, plain, pooled)
        top = nn.Sequential(tail, Pool(), self.model.head).to(self.device)

        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            rng = np.random.default_rng((self.seed, epoch, 1))
            for batch in shuffled(len(train.labels), self.batch_size, self.seed, epoch):
                seen = rng.integers(len(features), size=len(batch))
                rows = np.stack([features[view][row] for view, row in zip(seen, batch, strict=True)])
                yield torch.from_numpy(rows).to(self.device), train.labels[batch].to(self.device)

        def validate() -> tuple[Tensor, Tensor]:
            with torch.inference_mode():
                parts = np.array_split(held_out, -(-len(held_out) // VALIDATION_BATCH))
                logits = [top(torch.tensor(part).to(self.device)).cpu() for part in parts]
            return torch.cat(logits), validation.labels

        # Batch norm keeps the statistics it was trained with: a few thousand pictures give no better ones.
        top.eval()
        return self._phase(name, top, batches, validate, epochs, lr).run(progress)

    def _split(self, name: str, how: Preprocessing) -> Split:
        return Split.read(self.manifest, name, how, self.world)

    def _view(self, split: Split, frozen: nn.Sequential, view: View, pooled: bool) -> Features:
        """Outputs of the frozen blocks for each picture, seen through `view`; cached on disk."""
        kind = f"{self.settings.architecture} {self.settings.weights} {len(frozen)} {view.__name__} {pooled}"
        path = CACHE_FOLDER / "features" / f"{hashlib.sha256(f'{split.key} {kind}'.encode()).hexdigest()[:16]}.npy"
        if not path.exists():
            self._compute_view(path, split, frozen, view, pooled)
        features: Features = np.load(path, mmap_mode=None if pooled else "r")
        return features

    def _compute_view(self, path: Path, split: Split, frozen: nn.Sequential, view: View, pooled: bool) -> None:
        def read(rows: slice) -> NDArray[np.uint8]:
            return np.ascontiguousarray(view(split.pictures[rows]))

        network = Network(self.model.normalise, nn.Sequential(frozen, Pool()) if pooled else frozen).eval()
        title = f"features, {view.__name__}"
        with array_writer(path, len(split.pictures)) as write:
            for start, found in forward(network, self.device, read, len(split.pictures), self.recipe.image_size, title):
                write(start, found)

    def _whole(self, progress: Progress) -> Progress:
        """Train every weight on augmented pictures; validation and the result use a moving average of the weights."""
        stored = replace(self.how, size=self.how.resize)
        train, validation = self._split("train", stored), self._split("validation", self.how)
        batches = Augmented(
            train.pictures,
            train.labels,
            self.recipe.image_size,
            self.batch_size,
            self.recipe.epochs,
            self.seed,
        )
        averaged = AveragedModel(self.model, avg_fn=moving_average, use_buffers=True)

        def moved(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            self.model.train()
            for images, labels in batches(epoch):
                yield images.to(self.device), labels.to(self.device)

        @torch.inference_mode()
        def validate() -> tuple[Tensor, Tensor]:
            averaged.eval()
            parts = np.array_split(
                np.arange(len(validation.pictures)), -(-len(validation.pictures) // VALIDATION_BATCH)
            )
            images = (to_channels(validation.pictures[part]) for part in parts)
            return torch.cat([averaged.module(batch.to(self.device)).cpu() for batch in images]), validation.labels

        epochs, lr = self.recipe.epochs, self.recipe.lr
        return self._phase("train", self.model, moved, validate, epochs, lr, averaged).run(progress)

    def _phase(
        self,
        name: str,
        model: nn.Module,
        batches: Batches,
        validate: Validation,
        epochs: int,
        lr: float,
        averaged: AveragedModel | None = None,
    ) -> Phase:
        # Of the smallest share, so that no process waits for a batch that another does not have.
        smallest = len(self.manifest.split("train")) // self.world.size
        steps = sum(1 for _ in shuffled(smallest, self.batch_size, 0, 0))
        decay = self.recipe.weight_decay
        weights = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim <= 1]
        groups = [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
        optimizer: torch.optim.Optimizer
        if name == "head":
            optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)
        else:
            optimizer = torch.optim.AdamW(groups, lr=lr)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=epochs * steps)
        return Phase(
            name=name,
            model=model,
            optimizer=optimizer,
            scheduler=scheduler,
            batches=batches,
            validation=validate,
            epochs=epochs,
            steps=steps,
            patience=self.settings.patience,
            label_smoothing=self.settings.label_smoothing,
            checkpoint=self.checkpoint,
            keep_best=name != "head",
            averaged=averaged,
            world=self.world,
        )


def moving_average(average: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
    """Exponential moving average of weights whose memory grows to 100 steps, so that short runs forget their start."""
    memory = min(0.99, (1 + int(count)) / (10 + int(count)))
    return average + (new - average) * (1 - memory) if average.is_floating_point() else new


class Pool(nn.Module):
    """Average over the feature map; an embedding that is one already passes."""

    def forward(self, features: Tensor) -> Tensor:
        return features.mean((2, 3)) if features.ndim == 4 else features


def train(settings: params.Train, world: World = distributed.ALONE) -> None:
    """Train on data/manifest.csv and write weights, history and summary; continues an interrupted run."""
    if world.leads:
        commit()  # a model without a commit has no lineage: told now, not after the training
    trainer = Trainer(settings, Manifest.read(), world)
    progress = trainer.run()
    if world.leads:
        write(trainer, progress)


def write(trainer: Trainer, progress: Progress) -> None:
    """The result of a finished run: history, summary, and last the weights."""
    summary = {
        "classes": trainer.manifest.classes,
        "architecture": trainer.settings.architecture,
        "preprocessing": vars(trainer.how),
        "recipe": vars(trainer.recipe),
        "device": str(trainer.device),
        "processes": trainer.world.size,
        "parameters": sum(weights.numel() for weights in trainer.model.parameters()),
        "epochs": len(progress.history),
        "validation_loss": progress.best_loss,
        "validation_accuracy": progress.best_accuracy,
    }
    HISTORY_FILE.parent.mkdir(exist_ok=True)
    write_history(progress.history, HISTORY_FILE)
    SUMMARY_FILE.write_text(json.dumps(summary, indent=2) + "\n")
    save(trainer.model.cpu().state_dict(), WEIGHTS_FILE)
    trainer.checkpoint.unlink(missing_ok=True)
    print(f"validation accuracy {progress.best_accuracy:.4f}, loss {progress.best_loss:.4f}: {WEIGHTS_FILE}")


def main() -> None:
    parser = argparse.ArgumentParser("python -m training.train", description=__doc__)
    params.add_arguments(parser, params.Train)
    arguments = parser.parse_args()
    with distributed.joined() as world:
        train(params.override(params.load().train, arguments), world)


if __name__ == "__main__":
    run_command(main)
