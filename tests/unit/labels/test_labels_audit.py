"""The audit from manifest to page, on tiny pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data import audit as command
from data.manifest import Manifest
from tests.tiny import SIZE, tiny_data
from training import params
from training.fit.head import Features
from training.fit.pooled import Split
from training.labels import audit
from training.labels.audit import Familiar, Judge
from training.model.preprocess import Preprocessing

pytestmark = pytest.mark.torch
ROOT = Path(__file__).parents[3]


class Colours(Judge):
    """Judges by the mean colours of quarters of a picture, in place of a backbone that takes seconds."""

    def __init__(self) -> None:
        object.__setattr__(self, "frozen", SimpleNamespace(size=SIZE, name="colours"))
        for name, value in (("how", Preprocessing(SIZE, SIZE, "bilinear")), ("levels", (0,)), ("strength", 0.1)):
            object.__setattr__(self, name, value)

    def features(self, split: Split) -> Features:
        half = SIZE // 2
        quarters: Features = split.pictures.reshape(-1, 2, half, 2, half, 3).mean((2, 4)) / 25
        return quarters.reshape(len(quarters), -1)


def test_planted_labels_are_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = Manifest.read(tiny_data(tmp_path, per_class=100))
    flipped = manifest.split("train")[3]
    rows = tuple(replace(row, label="dog") if row == flipped else row for row in manifest.pictures)
    monkeypatch.setattr(Judge, "of", lambda *_: Colours())
    found = command.audit(params.load(ROOT / "params.yaml").train, Manifest(rows, manifest.sha256))
    worst = found["train"]["most_certain"][0]
    assert (worst["sha256"], worst["label"], worst["looks_like"]) == (flipped.sha256, "dog", "cat")
    low, high = found["train"]["wrong_labels"]["interval"]
    assert low < 1 / found["train"]["pictures"] < high
    assert json.loads(command.AUDIT_JSON.read_text()) == found
    assert flipped.sha256 in command.AUDIT_HTML.read_text()
    assert f"{found['train']['suspects']} of 80 to look at" in command.told(found)


def test_without_a_pretrained_network_the_built_in_one_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a network makes of pictures that it was trained on follows their labels, also the wrong ones."""
    monkeypatch.chdir(tmp_path)
    manifest = Manifest.read(tiny_data(tmp_path, per_class=5))
    (tmp_path / "models").mkdir()
    (tmp_path / "models/training.json").write_text('{"architecture": "cnn", "head": null}')
    asked = []
    monkeypatch.setattr(audit, "_frozen", lambda *words: asked.append(words[:2]))
    monkeypatch.setattr(audit, "_every", lambda _: (0, 1))
    judge = Judge.of(params.load(ROOT / "params.yaml").train, manifest)
    assert asked == [("efficientnet_lite0", "DEFAULT")]
    assert (judge.levels, judge.strength) == ((0, 1), audit.STRENGTH)


def test_every_level_that_training_cached_judges_where_that_is_better() -> None:
    class Model:
        def sides(self, _size: int) -> dict[int, tuple[int, int]]:
            return {0: (8, 4), 1: (16, 2), 2: (16, 2)}

    class Frozen:
        model, size = Model(), 64

    table = [{"levels": "last", "log_loss": 0.5, "strength": 1.0}, {"levels": "all", "log_loss": 0.4, "strength": 0.3}]
    head = {"table": table, "candidate": {"levels": "last"}, "strength": 1.0}
    few, many = np.zeros(100, np.int64), np.zeros(6000, np.int64)
    assert audit._recipe(Frozen(), head, few) == ((0, 1, 2), (0, 1, 2), 0.3)  # type: ignore[arg-type]
    assert audit._recipe(Frozen(), head, many) == ((2,), (2,), 0.5)  # type: ignore[arg-type]


def test_what_lies_outside_of_the_usual_directions_is_unlike() -> None:
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    usual = random.normal(0, 1, (200, 100)) * np.r_[np.ones(50), np.zeros(50)] + 1
    familiar = Familiar.of(usual.astype(np.float32), np.repeat([0, 1], 100))
    strange = usual[:1] + np.r_[np.zeros(50), np.ones(50)]
    usually = familiar.unlike(usual.astype(np.float32)).max()
    assert familiar.unlike(strange.astype(np.float32)).min() > 2 * usually
