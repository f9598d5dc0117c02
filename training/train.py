"""Train the classifier: data/manifest.csv -> models/best_model.pth, models/history.csv.

A pretrained backbone stays frozen: its features are computed once and cached, and cross-validation
(training.fit.choice) chooses how the head on them is solved (training.fit.head). If the head's error is large, the
last blocks of the backbone are fine-tuned after it, and the better of the two on the validation split is kept. An
architecture without pretrained weights is trained as a whole. Under torchrun, several processes share the pictures
and every batch (training/fit/distributed.py). Measured results are in training/fit/README.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from data.cache import CACHE_FOLDER
from data.manifest import Manifest, decoded_key
from training import params
from training.common.command import run_command
from training.common.source import commit
from training.fit import distributed
from training.fit.architectures import Recipe, build, recipe
from training.fit.augment import Augmented, shuffled, to_channels
from training.fit.device import set_up
from training.fit.distributed import World
from training.fit.loop import Batches, Phase, Progress, Validation, resume, save, write_history
from training.fit.outputs import HISTORY_FILE, SUMMARY_FILE, WEIGHTS_FILE
from training.fit.pooled import Frozen, Split
from training.fit.solve import described, solve
from training.fit.tuning import Tuning
from training.model.picture.values import ValueRange
from training.model.preprocess import Preprocessing

VALIDATION_BATCH = 32


def preprocessing(size: int, value_range: ValueRange | None = None) -> Preprocessing:
    """The middle 7/8 of the picture, as the ImageNet weights were evaluated. `value_range` is what `prepare` read the
    pictures with; with the model it comes to the service."""
    return Preprocessing(size, round(size * 8 / 7), "bilinear", value_range)


class Trainer:
    """One training run; `run` leaves the weights that won in `model`."""

    def __init__(
        self,
        settings: params.Train,
        manifest: Manifest,
        world: World = distributed.ALONE,
        value_range: ValueRange | None = None,
    ) -> None:
        self.settings = settings
        self.manifest = manifest
        self.world = world
        self.device = set_up(settings.seed)
        self.model = build(settings.architecture, settings.weights, len(manifest.classes)).to(self.device)
        short_side = np.median([min(row.width, row.height) for row in manifest.split("train")])
        self.recipe: Recipe = recipe(settings, self.model, float(short_side))
        self.how = preprocessing(self.recipe.image_size, value_range)
        self.batch_size = world.batch(self.recipe.batch_size)
        self.seed = settings.seed + world.rank  # of order and augmentation; the start weights are the same everywhere
        seen = decoded_key(manifest.split("train"), self.how)
        identity = f"{manifest.sha256} {settings.model_dump_json()} {self.recipe} {world.size} {seen}"
        self.checkpoint = CACHE_FOLDER / "train" / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.pth"
        self.choice: dict[str, Any] | None = None  # how a solved head was chosen

    def run(self) -> Progress:
        progress = self.world.agreed(resume(self.checkpoint))
        if progress.epoch and self.world.leads:
            print(f"continuing an interrupted run after epoch {len(progress.history)}")
        if self.model.pretrained:
            return self._transfer(progress)
        return self._whole(progress)

    def _transfer(self, progress: Progress) -> Progress:
        """The solved head; after it the last blocks, where its cross-validated error says that this may pay."""
        settings, size = self.settings, self.recipe.image_size
        train, validation = (self._split(name, self.how) for name in ("train", "validation"))
        frozen = Frozen(self.model, f"{settings.architecture} {settings.weights}", size, self.device, self.world)
        solved = solve(frozen, train, validation, len(self.manifest.classes), settings.search, settings.seed)
        self.model.use(solved.levels, size)
        self.model.head.load_state_dict({"weight": solved.weight.T.to(self.device), "bias": solved.bias})
        self.choice = solved.choice.as_dict()
        if self.world.leads:
            print(described(solved.choice))
        row = {"epoch": 1, "phase": "head", **solved.row}
        after = Progress("head", 1, row["validation_loss"], row["validation_accuracy"], 0, [row])
        if not settings.finetune_blocks or solved.choice.error <= settings.finetune_above:
            return after
        tuning = Tuning(frozen, solved, train, validation, self._phase, self.recipe, settings)
        done = tuning.run(progress if progress.phase == "finetune" else after)
        self.choice["finetuning"] = tuning.account
        return done

    def _split(self, name: str, how: Preprocessing) -> Split:
        return Split.read(self.manifest, name, how, self.world)

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
        averaged = AveragedModel(self.model, avg_fn=_moving_average, use_buffers=True)

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
            averaged=averaged,
            world=self.world,
        )


def _moving_average(average: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
    """Exponential moving average of weights whose memory grows to 100 steps, so that short runs forget their start."""
    memory = min(0.99, (1 + int(count)) / (10 + int(count)))
    return average + (new - average) * (1 - memory) if average.is_floating_point() else new


def train(settings: params.Train, world: World = distributed.ALONE, value_range: ValueRange | None = None) -> None:
    """Train on data/manifest.csv and write weights, history and summary; continues an interrupted run."""
    if world.leads:
        commit()  # a model without a commit has no lineage: told now, not after the training
    trainer = Trainer(settings, Manifest.read(), world, value_range)
    progress = trainer.run()
    if world.leads:
        write(trainer, progress)


def write(trainer: Trainer, progress: Progress) -> None:
    """The result of a finished run: history, summary, and last the weights."""
    summary = {
        "classes": trainer.manifest.classes,
        "architecture": trainer.settings.architecture,
        "preprocessing": trainer.how.as_dict(),
        "recipe": vars(trainer.recipe),
        "levels": trainer.model.levels,
        "head": trainer.choice,
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
    parser = argparse.ArgumentParser(
        "python -m training.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    params.add_arguments(parser, params.Train)
    arguments = parser.parse_args()
    loaded = params.load()
    with distributed.joined() as world:
        train(params.override(loaded.train, arguments), world, loaded.prepare.values_from_to)


if __name__ == "__main__":
    run_command(main)
