"""Findings and their page, from logits as a judge gives them; pictures as prepare keeps them."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from data.manifest import Manifest
from tests.tiny import tiny_data
from training.labels import findings, page
from training.labels.findings import Judged
from training.labels.noise import Noise

CLASSES = ("<b>cat", "dog")


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """Twelve pictures, six of each class: 0 and 1 are near duplicates with a wrong label, 2 is wrong and confirmed, 3
    and 6 are near duplicates of two classes, 11 is far from all."""
    root = tmp_path_factory.mktemp("tiny")
    manifest = Manifest.read(tiny_data(root, ("cat", "dog"), 12), root / "data/processed")
    rows = [row for name in ("cat", "dog") for row in [row for row in manifest.pictures if row.label == name][:6]]
    labels = np.repeat([0, 1], 6)
    rows = [replace(row, label=CLASSES[label]) for row, label in zip(rows, labels, strict=True)]
    for place in (0, 1):
        rows[place] = replace(rows[place], group="film")
    rows[2] = replace(rows[2], given=CLASSES[0])
    for place in (3, 6):
        rows[place] = replace(rows[place], group="pair")
    logits = np.where(labels[:, None] == [0, 1], 6.0, -6.0)
    logits[:3] *= -1
    logits[5] = [0.2, 0.0]
    novelty = np.r_[np.linspace(0.1, 0.2, 11), 0.9]
    return Judged("train", tuple(rows), CLASSES, labels, logits, novelty, Noise(0.1, (0.02, 0.3), 1.0))


def test_one_suspect_for_near_duplicates_and_none_that_somebody_confirmed(judged: Judged) -> None:
    found = judged.suspects()
    assert [(one.pictures, one.guess) for one in found] == [(judged.pictures[:2], "dog")]
    assert 0.99 < found[0].certainty < 1


def test_outliers_and_near_duplicates_of_two_classes(judged: Judged) -> None:
    assert judged.outliers() == [judged.pictures[11]]
    assert judged.twins() == [[judged.pictures[3], judged.pictures[6]]]


def test_metrics(judged: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "PICTURES_FOLDER", judged.pictures[0].path.parent.parent)
    splits = [replace(judged, name=name) for name in ("train", "validation", "test")]
    found = findings.describe(splits, {"strength": 0.1})
    assert found["train"]["wrong_labels"] == {"value": 0.1, "interval": [0.02, 0.3]}
    counts = ("pictures", "suspects", "near_duplicates_of_several_classes", "outliers", "looked_at")
    assert [found["test"][name] for name in counts] == [12, 1, 1, 1, 1]
    assert found["train"]["held_out_accuracy"]["value"] == 0.75
    assert [one["sha256"] for one in found["train"]["most_certain"]] == [judged.pictures[0].sha256]
    assert found["blurred_classes"][0]["classes"] == list(CLASSES)
    assert "train: 10.0% of the labels are wrong (2.0% to 30.0%), 1 of 12 to look at" in "\n".join(findings.told(found))
    text = page.page(splits, found)
    assert text.count('class="card"') == 3 * (1 + 2 + 1)
    assert f'data-sha="{judged.pictures[0].sha256} {judged.pictures[1].sha256}" data-test=""' in text
    assert f'data-sha="{judged.pictures[0].sha256} {judged.pictures[1].sha256}" data-test="yes"' in text
    assert "<b>cat" not in text
    assert "sha256,label,who,why,test" in text
    assert set(re.findall(r'src="([^,]*),', text)) == {"data:image/jpeg;base64"}


def test_the_page_shows_the_first_and_says_so(judged: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "PICTURES_FOLDER", judged.pictures[0].path.parent.parent)
    monkeypatch.setattr(page, "SHOWN", 1)
    single = replace(judged, pictures=tuple(replace(one, group="", given="") for one in judged.pictures))
    splits = [replace(single, name=name) for name in ("train", "validation", "test")]
    text = page.page(splits, findings.describe(splits, {}))
    assert "train: 3 labels that are probably wrong, the first 1<" in text
    assert text.count('class="card"') == 3 * (1 + 1)
