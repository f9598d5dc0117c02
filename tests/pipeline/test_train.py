"""Training, evaluation and export on tiny pictures, as the stages run them: commands in a project folder."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from data.cache import CACHE_FOLDER
from data.manifest import Manifest
from tests import killing
from tests.tiny import tiny_data, tiny_project
from training import export
from training.common.command import run_command
from training.evaluation.shortcuts import precision
from training.fit import choice
from training.model.classifier import Classifier
from training.model.folder import ModelFolder
from training.model.properties import PROPERTIES
from training.model.reference import REFERENCE_FILE, Reference

QUICK = ("--architecture", "cnn", "--image-size", "32", "--epochs", "2", "--batch-size", "16")


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code and what it printed."""

    code: int
    output: str


def stage(folder: Path, module: str, *arguments: str) -> Done:
    """Run the command of a stage in `folder`, in this process: importing torch anew takes longer than the stage."""
    command = importlib.import_module(module)
    output = io.StringIO()
    code = 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        patch.chdir(folder)
        patch.setattr(sys, "argv", [module, *arguments])
        try:
            run_command(command.main)
        except SystemExit as end:
            output.write(str(end.code))
            code = 1
    return Done(code, output.getvalue())


def train(folder: Path, *arguments: str) -> Done:
    return stage(folder, "training.train", *arguments)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with three classes, trained, evaluated and exported."""
    folder = tiny_project(tmp_path_factory.mktemp("trained") / "project", ("cat", "dog", "fox"), per_class=60)
    for module, arguments in (("training.train", QUICK), ("training.evaluate", ()), ("training.export", ())):
        done = stage(folder, module, *arguments)
        assert done.code == 0, done.output
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return tiny_project(tmp_path / "project", per_class=40)


def test_weights_are_a_plain_state_dict(trained: Path) -> None:
    state = torch.load(trained / "models/best_model.pth", weights_only=True)
    assert state["head.weight"].shape == (3, 512)
    assert all(isinstance(value, torch.Tensor) for value in state.values())


def test_no_checkpoint_is_left_after_a_finished_run(trained: Path) -> None:
    assert not list((trained / CACHE_FOLDER / "train").glob("*.pth"))


def test_same_seed_and_data_give_the_same_metrics(trained: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(trained, again, ignore=shutil.ignore_patterns("models", ".cache"))
    assert train(again, *QUICK).code == 0
    assert (again / "models/history.csv").read_text() == (trained / "models/history.csv").read_text()
    assert train(again, *QUICK, "--seed", "2").code == 0
    assert (again / "models/history.csv").read_text() != (trained / "models/history.csv").read_text()


def test_a_killed_run_continues_and_ends_the_same(project: Path) -> None:
    undisturbed = project.parent / "undisturbed"
    shutil.copytree(project, undisturbed)
    longer = (*QUICK[:4], "--epochs", "6", "--batch-size", "4")
    assert train(undisturbed, *longer).code == 0
    assert kill_in_training(project, longer), "the run ended before it could be killed"
    assert not (project / "models/best_model.pth").exists()
    done = train(project, *longer)
    assert "continuing an interrupted run after epoch" in done.output
    assert (project / "models/history.csv").read_text() == (undisturbed / "models/history.csv").read_text()


def kill_in_training(folder: Path, arguments: tuple[str, ...]) -> bool:
    """Kill the run as soon as it has a checkpoint; True if it was still at work then."""
    process = subprocess.Popen(
        killing.command("training.train", *arguments),
        cwd=folder,
        env=killing.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None:
        if list((folder / CACHE_FOLDER / "train").glob("*.pth")):
            process.kill()
            return process.wait() != 0
        time.sleep(0.02)
    return False


ALL = ("max_int8_label_changes: 1.0", "max_int8_accuracy_loss: 1.0", "harmless: []")
FROZEN = ("--image-size", "64", "--epochs", "2", "--finetune-blocks", "2", "--finetune-above", "1")


@pytest.fixture(scope="module")
def few_strengths() -> Iterator[None]:
    """Of pictures this few and this easy every weaker strength is a little better, and there are twelve to solve."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "STRENGTHS", (1.0, 0.1))
        yield


@pytest.fixture(scope="module")
def solved(few_strengths: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default architecture: a solved head, evaluated and exported."""
    folder = tiny_project(tmp_path_factory.mktemp("solved") / "project", ("cat", "dog", "fox"), per_class=24)
    for module, arguments in (("training.train", FROZEN), ("training.evaluate", ()), ("training.export", ())):
        done = stage(folder, module, *arguments)
        assert done.code == 0, done.output
    return folder


def test_a_head_is_solved_and_says_how_it_was_chosen(solved: Path) -> None:
    summary = json.loads((solved / "models/training.json").read_text())
    table = summary["head"]["table"]
    assert [row["views"] for row in table[:2]] == [["plain"], ["plain", "sharpened"]]
    assert {row["levels"] for row in table} == {"last", "late", "all"}
    assert [row["chosen"] for row in table].count(True) == 1
    assert len((solved / "models/history.csv").read_text().splitlines()) == 2
    assert summary["validation_accuracy"] > 0.8
    quarter, half, whole = (point["pictures"] for point in summary["head"]["learning_curve"])
    assert (
        quarter
        < half
        < whole
        == len(Manifest.read(solved / "data/manifest.csv", solved / "data/processed").split("train"))
    )


def test_a_solved_head_answers_as_it_was_evaluated(solved: Path) -> None:
    folder = ModelFolder.open(solved / "models/model")
    classifier = Classifier(folder)
    lines = (solved / "models/predictions.csv").read_text().splitlines()[1::3]
    files = [(solved / "data/processed" / line.split(",")[0]).read_bytes() for line in lines]
    expected = np.array([line.split(",")[4:] for line in lines], dtype=float)
    np.testing.assert_allclose(classifier.predict_bytes(files), expected, atol=1e-4)


def test_easy_pictures_are_answered_at_a_glance(solved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(solved, folder)
    done = evaluated_with(folder, "min_test_pictures: 36", *ALL, "min_int8_speedup: 0.001", "precision: fp32")
    found = json.loads((folder / "model_performance.json").read_text())["glance"]
    assert found["serves"], done.output
    assert 0 < found["easy"] <= 1
    assert stage(folder, "training.export").code == 0
    model = ModelFolder.open(folder / "models/model")
    assert model.card["glance"]
    lines = (folder / "models/predictions.csv").read_text().splitlines()[1:]
    files = [(folder / "data/processed" / line.split(",")[0]).read_bytes() for line in lines]
    expected = np.array([line.split(",")[4:] for line in lines], dtype=float)
    np.testing.assert_allclose(Classifier(model).predict_bytes(files), expected, atol=1e-4)
    without = evaluated_with(folder, "glance: false")
    assert "no first look: export.glance is off" in without.output


def test_it_is_the_same_each_time_from_cached_features(solved: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(solved, again)
    features = sorted((again / CACHE_FOLDER / "features").iterdir())
    stamps = [path.stat().st_mtime_ns for path in features]
    assert train(again, *FROZEN).code == 0
    assert [path.stat().st_mtime_ns for path in features] == stamps
    for name in ("history.csv", "training.json"):
        assert (again / "models" / name).read_text() == (solved / "models" / name).read_text()


def test_the_last_blocks_are_trained_after_a_poor_head_and_the_better_is_kept(solved: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(solved, again)
    done = train(again, *FROZEN, "--finetune-above", "0", "--lr", "0.5")
    assert done.code == 0
    assert "fine-tuning: not kept, the head alone is as good" in done.output
    account = json.loads((again / "models/training.json").read_text())["head"]["finetuning"]
    assert (account["epochs"], account["won"]) == (2, False)
    phases = [line.split(",")[1] for line in (again / "models/history.csv").read_text().splitlines()[1:]]
    assert phases == ["head", "finetune", "finetune"]
    before, after = (torch.load(path / "models/best_model.pth", weights_only=True) for path in (solved, again))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_budget_too_small_is_told(solved: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(solved, again)
    done = train(again, "--image-size", "64", "--finetune-blocks", "2", "--finetune-above", "0", "--minutes", "0")
    assert "fine-tuning: not tried: two epochs take about" in done.output


def test_evaluation_describes_the_test_split(trained: Path) -> None:
    found = json.loads((trained / "model_performance.json").read_text())
    low, high = found["accuracy_interval"]
    assert 0 <= low <= found["accuracy"] <= high <= 1
    assert found["pictures"] == 90
    assert set(found["per_class"]) == {"cat", "dog", "fox"}
    assert {"log_loss", "roc_auc", "calibration_error", "calibration_error_before_temperature"} <= set(found)
    names = {path.name for path in (trained / "models/plots").iterdir()}
    assert {"confusion_matrix.png", "reliability.png", "roc.png", "learning_curves.png", "worst_mistakes.png"} == names


def test_evaluation_measures_behaviour_and_other_things(trained: Path) -> None:
    found = json.loads((trained / "model_performance.json").read_text())
    behaviour = found["behaviour"]
    assert behaviour["pictures"] == 90
    assert {"mirrored", "exif_rotated", "encoded_again"} < set(behaviour["invariance"])
    assert set(behaviour["direction"]) == {"blurred", "noisy"}
    assert behaviour["minimum"] == {"pictures": 0, "right": 0, "wrong": []}
    kinds = set(found["other_things"])
    assert {"all", "noise", "drawing", "text", "screen", "landscape", "object"} == kinds
    for kind in found["other_things"].values():
        low, high = kind["auroc_novelty"]["interval"]
        assert 0 <= low <= kind["auroc_novelty"]["value"] <= high <= 1


@pytest.fixture(scope="module")
def int8(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights, evaluated and exported in int8."""
    folder = tmp_path_factory.mktemp("int8") / "project"
    shutil.copytree(trained, folder)
    evaluated_with(folder, "precision: int8")
    assert stage(folder, "training.export").code == 0
    return folder


def evaluated_with(folder: Path, *settings: str) -> Done:
    """Evaluate with other values of keys in params.yaml, each as `key: value`."""
    text = (folder / "params.yaml").read_text()
    for setting in settings:
        text, count = re.subn(rf"^  {setting.split(':')[0]}:[^#\n]*", f"  {setting} ", text, flags=re.MULTILINE)
        assert count == 1, setting
    (folder / "params.yaml").write_text(text)
    done = stage(folder, "training.evaluate")
    assert done.code == 0, done.output
    return done


def test_an_int8_model_is_judged_as_it_serves(int8: Path, trained: Path) -> None:
    folder = ModelFolder.open(int8 / "models/model")
    fp32 = json.loads((trained / "model_performance.json").read_text())
    assert (folder.card["precision"], fp32["precision"]["serves"]) == ("int8", "fp32")
    assert (folder.path / "model.onnx").stat().st_size < 0.4 * (trained / "models/model/model.onnx").stat().st_size
    quantisation = folder.card["metrics"]["quantisation"]
    assert quantisation["accuracy_fp32"] == fp32["accuracy"]
    assert quantisation["accuracy_int8"] == folder.card["metrics"]["accuracy"]
    assert 0 <= quantisation["label_changes"] < 0.2
    assert folder.card["metrics"]["precision"] == {"serves": "int8", "why": "export.precision says so"}


def test_of_few_test_pictures_auto_leaves_fp32(trained: Path) -> None:
    found = json.loads((trained / "model_performance.json").read_text())
    assert found["precision"] == {
        "serves": "fp32",
        "why": "90 test pictures cannot show that int8 answers as fp32 does, 100 can",
    }
    assert "quantisation" not in found


@pytest.mark.parametrize(
    ("settings", "serves", "why"),
    [
        (
            ("min_test_pictures: 90", *ALL, "min_int8_speedup: 0.001"),
            "int8",
            "other answers to the test pictures than in fp32, accuracy",
        ),
        (("min_test_pictures: 90", *ALL, "min_int8_speedup: 1000.0"), "fp32", "int8 is not 1000 times as fast here"),
    ],
)
def test_auto_takes_int8_where_it_is_as_good_and_quicker(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: tuple[str, ...],
    serves: str,
    why: str,
) -> None:
    """Behaviour and novelty, of which a network trained for two epochs has little, have tests of their own."""
    monkeypatch.setattr(precision, "worse", lambda *_: None)
    folder = tmp_path / "project"
    shutil.copytree(trained, folder)
    done = evaluated_with(folder, *settings)
    found = json.loads((folder / "model_performance.json").read_text())
    assert found["precision"]["serves"] == serves
    assert why in found["precision"]["why"]
    assert f"{serves} serves: {found['precision']['why']}" in done.output
    assert {"accuracy_fp32", "accuracy_int8", "label_changes"} == set(found["quantisation"])
    exported = stage(folder, "training.export", "--precision", "fp32")
    if serves == "int8":
        assert "error: int8 was evaluated, export.precision is fp32: run `dvc repro`" in exported.output
    else:
        assert ModelFolder.open(folder / "models/model").card["precision"] == "fp32"


def test_an_int8_model_gives_the_evaluated_probabilities(int8: Path) -> None:
    folder = ModelFolder.open(int8 / "models/model")
    classifier = Classifier(folder)
    for line in (int8 / "models/predictions.csv").read_text().splitlines()[1::9]:
        path, _, _, prediction, *values = line.split(",")
        answer = classifier.predict_bytes([(int8 / "data/processed" / path).read_bytes()])[0]
        np.testing.assert_allclose(answer, np.array(values, dtype=float), atol=1e-3)
        assert folder.classes[answer.argmax()] == prediction
    shapes = [value.shape for value in classifier.run(np.zeros((2, 32, 32, 3), np.uint8), export.OUTPUTS)]
    assert shapes == [(2, 3), (2, 512), (2,), (2, 3, 2, 2)]


def test_the_exported_model_gives_the_evaluated_probabilities(trained: Path) -> None:
    folder = ModelFolder.open(trained / "models/model")
    classifier = Classifier(folder)
    lines = (trained / "models/predictions.csv").read_text().splitlines()
    assert lines[0] == "path,sha256,label,prediction,cat,dog,fox"
    for line in lines[1::7]:
        path, _, _, prediction, *values = line.split(",")
        answer = classifier.predict_bytes([(trained / "data/processed" / path).read_bytes()])[0]
        np.testing.assert_allclose(answer, np.array(values, dtype=float), atol=1e-4)
        assert folder.classes[answer.argmax()] == prediction


def test_the_model_folder_says_where_it_comes_from(trained: Path) -> None:
    card = ModelFolder.open(trained / "models/model").card
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=trained, capture_output=True, text=True, check=True).stdout
    assert card["lineage"]["git_commit"] == head.strip()
    assert card["parity"]["pictures"] == 64
    assert card["parity"]["max_difference"] <= card["parity"]["tolerance"]
    assert len(card["self_check"]) == 8
    assert card["metrics"] == json.loads((trained / "model_performance.json").read_text())


def test_the_worst_mistakes_travel_with_the_model(trained: Path) -> None:
    folder = ModelFolder.open(trained / "models/model")
    lines = [line.split(",") for line in (trained / "models/predictions.csv").read_text().splitlines()[1:]]
    wrong = sorted((max(map(float, values)) for _, _, label, said, *values in lines if label != said), reverse=True)
    assert [one["confidence"] for one in folder.card["mistakes"]] == wrong[:12]
    for one in folder.card["mistakes"]:
        assert one["label"] != one["predicted"]
        with Image.open(folder.path / one["file"]) as thumbnail:
            assert max(thumbnail.size) <= 160


def test_the_reference_is_of_the_validation_split(trained: Path) -> None:
    folder = ModelFolder.open(trained / "models/model")
    found = Reference.load(folder.path)
    assert found is not None
    rows = Manifest.read(trained / "data/manifest.csv", trained / "data/processed").split("validation")
    answers = Classifier(folder).predict_bytes([row.path.read_bytes() for row in rows])
    np.testing.assert_allclose(found.confidences, answers.max(1), atol=1e-5)
    np.testing.assert_array_equal(found.labels, answers.argmax(1))
    assert set(found.properties[:, PROPERTIES.index("short_side")]) == {40}
    assert found.max_short_side == 512


def test_the_network_takes_any_number_of_pictures_and_names_no_path(trained: Path) -> None:
    folder = ModelFolder.open(trained / "models/model")
    for count in (1, 2, 5):
        images = np.zeros((count, 32, 32, 3), np.uint8)
        shapes = [
            value.shape
            for value in Classifier(folder).run(images, ("probabilities", "embedding", "novelty", "activation"))
        ]
        assert shapes == [(count, 3), (count, 512), (count,), (count, 3, 2, 2)]
    onnx.checker.check_model(onnx.load(folder.path / "model.onnx"))
    assert b"/site-packages/" not in (folder.path / "model.onnx").read_bytes()


def test_exporting_twice_gives_the_same_network(trained: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(trained, again)
    assert stage(again, "training.export").code == 0
    first, second = (folder / "models/model" for folder in (trained, again))
    assert ModelFolder.open(first).sha256 == ModelFolder.open(second).sha256
    assert (first / REFERENCE_FILE).read_bytes() == (second / REFERENCE_FILE).read_bytes()


def test_export_fails_when_runtimes_disagree(trained: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(trained, again)
    before = (again / "models/model/SHA256SUMS").read_bytes()
    done = stage(again, "training.export", "--parity-tolerance", "1e-12")
    assert done.code == 1
    assert "the model folder and what was evaluated differ by" in done.output
    assert "Traceback" not in done.output
    assert (again / "models/model/SHA256SUMS").read_bytes() == before


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("training.train", "manifest.csv is missing: run `dvc repro prepare`"),
        ("training.evaluate", "manifest.csv is missing"),
        ("training.export", "manifest.csv is missing"),
    ],
)
def test_a_stage_without_its_input_names_the_command(project: Path, module: str, message: str) -> None:
    (project / "data/manifest.csv").unlink()
    done = stage(project, module)
    assert done.code == 1
    assert message in done.output
    assert "Traceback" not in done.output


def test_evaluation_without_weights_names_the_command(project: Path) -> None:
    done = stage(project, "training.evaluate")
    assert done.code == 1
    assert "best_model.pth is missing: run `dvc repro train`" in done.output


def test_a_wrong_override_is_told(project: Path) -> None:
    done = train(project, "--epochs", "many")
    assert done.code == 1
    assert "epochs: input should be a valid integer" in done.output


def test_other_pictures_need_other_weights(trained: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(trained, again)
    tiny_data(again, ("cat", "dog", "hen"), per_class=20)
    done = stage(again, "training.evaluate")
    assert done.code == 1
    assert "run `dvc repro train`" in done.output
