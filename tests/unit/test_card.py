"""The model card as a document: it says what the card of the model folder says."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.tiny import good_behaviour, tiny_model_folder
from training import card
from training.model.folder import write_sums

ROOT = Path(__file__).parent.parent.parent
FIGURES = json.loads((ROOT / "model_performance.json").read_text())


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["card", *words])
    card.main()


def test_the_document_holds_figures_and_lineage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"value": 0.9, "interval": [0.8, 0.95]}
    strange = {"pictures": 32, "auroc_novelty": told, "auroc_confidence": told, "not_sure": told}
    measured = {"behaviour": good_behaviour(), "other_things": {"noise": strange}, "something": {"new": 0.987}}
    folder = tiny_model_folder(tmp_path / "model", metrics=FIGURES | measured)
    run(monkeypatch, str(folder.path))
    text = capsys.readouterr().out
    low, high = FIGURES["accuracy_interval"]
    assert f"| accuracy | {FIGURES['accuracy']:.4f} | 95 % interval (Wilson) {low:.4f} to {high:.4f} |" in text
    assert f"| is cat | {' | '.join(str(value) for value in FIGURES['confusion_matrix'][0])} |" in text
    assert "| something.new | 0.987 |" in text
    assert "| mirrored | 1.0000 [0.9600, 1.0000] | 0.0100 |" in text
    assert "| blurred | 0.9500 | 0.9000 | -0.0500 [-0.0600, -0.0400] |" in text
    assert "Of 10 test pictures that anyone recognises, 10 are classified correctly." in text
    assert "| noise | 32 | 0.9000 [0.8000, 0.9500] |" in text
    assert "ONNX Runtime and torch differ by at most" in text
    assert folder.sha256 in text
    assert all(folder.card["lineage"][key] in text for key in ("git_commit", "data_hash", "test_hash", "params_hash"))
    run(monkeypatch, str(folder.path), "--out", str(tmp_path / "card.md"))
    assert (tmp_path / "card.md").read_text() == text


def test_int8_is_told(tmp_path: Path) -> None:
    change = {
        "quantisation": {"accuracy_fp32": 0.99, "label_changes": 0.001},
        "precision": {"serves": "int8", "why": "as good and quicker"},
    }
    folder = tiny_model_folder(tmp_path / "model", metrics=FIGURES | change, precision="int8")
    text = card.document(folder.card, folder.sha256)
    assert "| precision | int8: as good and quicker |" in text
    assert "0.10% of the answers differ, accuracy in fp32 0.9900" in text


def test_why_int8_does_not_serve_is_told(tmp_path: Path) -> None:
    change = {
        "quantisation": {"accuracy_fp32": 0.99, "label_changes": 0.02},
        "precision": {"serves": "fp32", "why": "int8 changes 2.00% of the answers"},
    }
    folder = tiny_model_folder(tmp_path / "model", metrics=FIGURES | change, precision="fp32")
    text = card.document(folder.card, folder.sha256)
    assert "| precision | fp32: int8 changes 2.00% of the answers |" in text
    assert "ONNX Runtime and torch differ by at most" in text


def test_a_first_look_is_told(tmp_path: Path) -> None:
    found = {"serves": True, "why": "many are easy", "easy": 0.88, "accuracy_fp32": 0.99, "label_changes": 0.001}
    folder = tiny_model_folder(tmp_path / "model", metrics=FIGURES | {"glance": found}, glance=True)
    text = card.document(folder.card, folder.sha256)
    assert "| first look | yes: many are easy |" in text
    assert (
        "apart from easy pictures, 88.0%, which a first look answers: 0.10% of the answers differ, accuracy of the"
        in text
    )
    without = {"serves": False, "why": "none is surely easy"}
    folder = tiny_model_folder(tmp_path / "model", metrics=FIGURES | {"glance": without}, glance=False)
    assert "| first look | no: none is surely easy |" in card.document(folder.card, folder.sha256)


def test_a_class_may_be_called_anything(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model", ("a|b", "c"))
    one = {"precision": 1.0, "recall": 1.0, "f1": 1.0, "pictures": 1}
    metrics = FIGURES | {"per_class": {"a|b": one, "c": one}}
    assert r"| is a\|b |" in card.document(folder.card | {"metrics": metrics}, folder.sha256)


def test_many_classes_are_a_short_document(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model")
    names = [f"class {number}" for number in range(1000)]
    figures = {
        name: {"precision": 1.0, "recall": number / 1000, "f1": 1.0, "pictures": 9} for number, name in enumerate(names)
    }
    pair = {"is": "class 7", "says": "class 9", "pictures": 3, "share": 0.25}
    metrics = {key: value for key, value in FIGURES.items() if key != "confusion_matrix"}
    metrics |= {"per_class": figures, "confused": [pair], "balanced_accuracy": 0.5432}
    text = card.document(folder.card | {"metrics": metrics}, folder.sha256)
    assert "| class 7 | class 9 | 3 | 25.0% |" in text
    assert "The 20 of 1000 classes with the lowest recall" in text
    assert len(re.findall(r"^\| class \d+ \| 1\.0000 \|", text, re.MULTILINE)) == 20
    assert "| balanced accuracy | 0.5432 |" in text


def test_the_card_in_the_repository_is_of_the_model_that_the_pipeline_makes() -> None:
    text = (ROOT / "training/gate/MODEL_CARD.md").read_text()
    for name in ("accuracy", "log_loss", "roc_auc", "calibration_error"):
        assert f"| {FIGURES[name]:.4f} |" in text, f"{name}: python -m training.card --out training/gate/MODEL_CARD.md"
    assert re.findall(r"^\| is \w+ \| (.+) \|$", text, re.MULTILINE) == [
        " | ".join(str(value) for value in row) for row in FIGURES["confusion_matrix"]
    ]


def test_the_words_of_others_are_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model folder comes from a registry: its names become no link, no HTML, no new line."""
    folder = tiny_model_folder(tmp_path / "model", metrics=FIGURES | {"behaviour": good_behaviour()})
    evil = "<b>[x](http://evil) `code`|\x1b[2J\n# Title"
    path = folder.path / "model_card.json"
    values = json.loads(path.read_text())
    values |= {"name": evil, "architecture": evil, "classes": [evil, "dog"]}
    values["lineage"]["git_commit"] = "0`<script>"
    path.write_text(json.dumps(values))
    write_sums(folder.path)
    run(monkeypatch, str(folder.path))
    text = capsys.readouterr().out
    shown = r"\<b\>\[x\](http://evil) \`code\`\|\\x1b\[2J\\n\# Title"
    assert text.splitlines()[0] == f"# Model card: {shown}"
    assert f"| architecture | {shown} |" in text
    assert "| code | `0'<script>`" in text
    assert "\x1b" not in text


def test_what_was_tried_for_the_head_is_a_table(tmp_path: Path) -> None:
    tried = {"levels": "last", "views": ["plain"], "strength": 1.0, "log_loss": 0.3, "changed_log_loss": 0.4}
    tried |= {"apart": 0.75, "error": 0.125, "chosen": False}
    chosen = tried | {"levels": "late", "views": ["plain", "mirrored"], "log_loss": 0.25, "chosen": True}
    curve = [
        {"pictures": 50, "log_loss": 0.4, "accuracy": 0.75},
        {"pictures": 100, "log_loss": 0.25, "accuracy": 0.875},
    ]
    head = {"table": [tried, chosen], "learning_curve": curve, "finetuning": {"said": "not kept"}}
    folder = tiny_model_folder(tmp_path / "model", metrics=FIGURES, head=head)
    text = card.document(folder.card, folder.sha256)
    assert "| last | plain | 1 | 0.3000 | 0.4000 | 0.7500 | 0.1250 |  |" in text
    assert "| late | plain, mirrored | 1 | 0.2500 | 0.4000 | 0.7500 | 0.1250 | chosen |" in text
    assert "Error by training pictures: 0.2500 of 50, 0.1250 of 100." in text
    assert "Fine-tuning: not kept." in text
