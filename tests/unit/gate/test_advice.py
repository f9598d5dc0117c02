"""Advice names what this run's own figures show, and nothing where the gate is content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data.manifest import Manifest
from tests.tiny import tiny_data
from training.gate.advice import advice
from training.gate.checks import Check

CARD: dict[str, Any] = {
    "metrics": {
        "weak_classes": [
            {
                "class": "dog",
                "recall": 0.4,
                "interval": [0.3, 0.5],
                "pictures": 50,
                "mistaken_for": "cat",
                "mistaken": 30,
            }
        ],
        "confused": [
            {"is": "dog", "says": "cat", "pictures": 30, "share": 0.6},
            {"is": "cat", "says": "dog", "pictures": 2, "share": 0.04},
        ],
    },
    "head": {"learning_curve": [{"pictures": 40, "accuracy": 0.6}, {"pictures": 80, "accuracy": 0.64}]},
}


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    tiny_data(tmp_path, per_class=100)
    monkeypatch.chdir(tmp_path)
    return Manifest.read()


def failing(*names: str) -> list[Check]:
    return [Check(name, False, "", "") for name in names]


def test_nothing_is_said_where_every_check_passed(manifest: Manifest) -> None:
    assert advice([Check("accuracy", True, "", "")], CARD, manifest) == []


def test_the_weakest_class_the_most_frequent_mistake_and_what_more_pictures_bring(manifest: Manifest) -> None:
    assert advice(failing("accuracy"), CARD, manifest) == [
        "add pictures of dog, the weakest class: 40% of its 50 test pictures are classified correctly; it has 40 "
        "training pictures, and is most often mistaken for cat",
        "look at the labels of dog and cat: 30 test pictures of dog (60%) are taken for cat, the most frequent mistake",
        "add training pictures: from 40 to 80 the accuracy rose by 4.0%, and twice as many would probably bring about "
        "half of that again",
    ]


def test_a_check_with_a_remedy_of_its_own_names_it_first(manifest: Manifest) -> None:
    first, *others = advice(failing("latency", "accuracy"), CARD, manifest)
    assert first == "set `export.precision: auto` if it is fp32, or choose a smaller `train.architecture`"
    assert len(others) == 2


def test_too_few_test_pictures_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_data(tmp_path, per_class=10)
    monkeypatch.chdir(tmp_path)
    (first,) = advice(failing("better than guessing"), {"metrics": {}}, Manifest.read())
    assert first == "add pictures: 10 test pictures are few; with 100 or more, models can be told apart"
