"""Plant wrong labels in a data set, and see how many the audit finds: the table in tests/model/README.md.

python -m tests.model.planted FOLDER --work DIR              # 3 % of the training labels flipped, three seeds
python -m tests.model.planted FOLDER --work DIR --share 0.1  # and what a head gains that learns from audited labels

The audit judges as it does without a trained recipe: efficientnet_lite0, all levels, one strength for every set. DIR
keeps the prepared pictures and their features, so that another share costs little.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.fetch import fetch
from data.manifest import MANIFEST_FILE, Manifest, Picture
from data.prepare import prepare
from training import params
from training.common.command import run_command
from training.fit.augment import PLAIN, plain
from training.fit.distributed import ALONE
from training.fit.pooled import Split
from training.fit.solve import fitted
from training.labels.audit import Judge, judged
from training.labels.findings import SUSPECT, Judged

LOOKED_AT = 4 / 3  # times the planted labels: so many pictures are looked at


def flipped(manifest: Manifest, share: float, seed: int) -> tuple[Manifest, NDArray[np.bool_]]:
    """The manifest with another class, any of them, for a share of the training pictures, and which of those."""
    random = np.random.default_rng(seed)
    rows = manifest.split("train")
    wrong = np.zeros(len(rows), bool)
    wrong[random.choice(len(rows), round(share * len(rows)), replace=False)] = True
    steps = random.integers(1, len(manifest.classes), len(rows))
    other = {
        row.path: manifest.classes[(label + step) % len(manifest.classes)]
        for row, label, step, is_wrong in zip(rows, manifest.labels(rows), steps, wrong, strict=True)
        if is_wrong
    }
    pictures = tuple(replace(row, label=other.get(row.path, row.label)) for row in manifest.pictures)
    return Manifest(pictures, manifest.sha256), wrong


def found(one: Judged, wrong: NDArray[np.bool_]) -> float:
    """The share of the planted labels among those that are looked at first."""
    doubt = one.noise.wrong(one.logits, one.labels)
    first = np.argsort(-doubt, kind="stable")[: round(LOOKED_AT * wrong.sum())]
    return float(wrong[first].sum() / max(1, wrong.sum()))


def audited(one: Judged, planted: Sequence[Picture], clean: Sequence[Picture]) -> tuple[Picture, ...]:
    """The labels after somebody who knows has looked at every suspect."""
    doubt = one.noise.wrong(one.logits, one.labels)
    return tuple(right if sure >= SUSPECT else row for row, right, sure in zip(planted, clean, doubt, strict=True))


def accuracy(judge: Judge, manifest: Manifest, train: Sequence[Picture]) -> float:
    """Of a head that learnt from these labels, on the test split."""
    features = {name: judge.features(Split.read(manifest, name, judge.how, ALONE)) for name in ("train", "test")}
    blank = judge.frozen.pooled(Split.of_nothing(judge.frozen.size), PLAIN, plain, judge.levels)
    columns = np.arange(features["train"].shape[1])
    heads = fitted([features["train"]], columns, manifest.labels(train), len(manifest.classes), judge.strength, blank)
    answers = heads.logits(features["test"])[0].argmax(1).numpy()
    return float((answers == manifest.labels(manifest.split("test"))).mean())


def measure(manifest: Manifest, share: float, seeds: int, learn: bool) -> None:
    judge = Judge.untrained(manifest, 0)
    clean = manifest.split("train")
    for seed in range(seeds):
        planted, wrong = flipped(manifest, share, seed)
        train = judged(judge, planted, seed)[0]
        low, high = train.noise.interval
        looked = round(LOOKED_AT * wrong.sum())
        line = f"seed {seed}: {found(train, wrong):.1%} of {wrong.sum()} found among {looked}; estimated "
        line += (
            f"estimated {train.noise.share:.2%} [{low:.2%}, {high:.2%}]; held-out accuracy {train.right().mean():.1%}"
        )
        if learn:
            kinds = {"raw": planted.split("train"), "audited": audited(train, planted.split("train"), clean)}
            kinds["clean"] = clean
            figures = ", ".join(f"{name} {accuracy(judge, manifest, rows):.4f}" for name, rows in kinds.items())
            suspects = int((train.noise.wrong(train.logits, train.labels) >= SUSPECT).sum())
            line += f"; test accuracy {figures} ({suspects} looked at)"
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser("python -m tests.model.planted", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for prepared pictures and features")
    parser.add_argument("--share", type=float, default=0.03, help="of the training labels that are flipped")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    settings, source = params.load(), str(arguments.folder.resolve())
    arguments.work.mkdir(parents=True, exist_ok=True)
    os.chdir(arguments.work)
    if not MANIFEST_FILE.is_file():
        fetch(settings.data.model_copy(update={"source": "folder", "path": source}))
        prepare(settings.prepare, settings.data.rename)
    manifest = Manifest.read()
    print(f"{source}: {len(manifest.split('train'))} training pictures, {len(manifest.classes)} classes")
    for share in dict.fromkeys((0.0, arguments.share)):
        seeds = arguments.seeds if share else 1
        print(f"{share:.0%} flipped")
        measure(manifest, share, seeds, share >= 0.1)


if __name__ == "__main__":
    run_command(main)
