from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.manifest import Manifest
from tests.killing import ROOT
from tests.tiny import tiny_data, tiny_model_folder
from training import params
from training.gate import checks as gate_checks
from training.gate.checks import Check, Gate, better_than_guessing, chance_calibration_error
from training.model.folder import CARD_FILE, ModelFolder, write_sums

pytestmark = pytest.mark.slow

LIMITS = params.load(ROOT / "params.yaml").promote
Judge = Callable[..., dict[str, Check]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gate")
    tiny_data(root, ("cat", "dog"), per_class=200)
    return root


@pytest.fixture
def manifest(data: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    monkeypatch.chdir(data)
    return Manifest.read()


@pytest.fixture
def model(manifest: Manifest, tmp_path: Path) -> Callable[..., ModelFolder]:
    def make(name: str = "candidate", **how: Any) -> ModelFolder:
        return tiny_model_folder(tmp_path / name, manifest=manifest, **how)

    return make


@pytest.fixture
def judge(manifest: Manifest) -> Judge:
    def decide(candidate: ModelFolder, champion: ModelFolder | None = None, **limits: Any) -> dict[str, Check]:
        checks = Gate(candidate, champion, manifest, LIMITS.model_copy(update=limits)).judge()
        return {check.name: check for check in checks}

    return decide


def failed(checks: dict[str, Check]) -> set[str]:
    return {name for name, check in checks.items() if not check.passed}


def test_a_sound_first_model_passes_every_check(judge: Judge, model: Any) -> None:
    checks = judge(model())
    assert failed(checks) == set()
    assert {"same test data", "parity", "self-check", "calibration", "latency", "size"} < checks.keys()
    assert "never worse" not in checks


def test_a_better_candidate_passes(judge: Judge, model: Any) -> None:
    checks = judge(model(), model("champion", skill=0.3, seed=1))
    assert failed(checks) == set()
    assert "fewer errors" in checks["reason to move"].figure


def test_a_worse_candidate_fails_with_figures(judge: Judge, model: Any) -> None:
    checks = judge(model(skill=0.3, seed=1), model("champion"))
    assert failed(checks) == {"never worse", "non-inferior", "reason to move"}
    assert checks["never worse"].figure.startswith("0.7")


def test_a_lower_log_loss_at_the_same_answers_is_a_reason(judge: Judge, model: Any) -> None:
    checks = judge(model(), model("champion", skill=1.0, sharpness=8.0))
    assert failed(checks) == set()
    assert checks["reason to move"].figure.startswith("lower log-loss")


@pytest.mark.parametrize("seed", range(20))
def test_of_two_equal_models_the_champion_stays_whatever_the_seed(judge: Judge, model: Any, seed: int) -> None:
    """Trained alike from two seeds: almost the same weights, a few answers differ."""
    checks = judge(model(skill=0.97, seed=5), model("champion", skill=0.97, seed=6), seed=seed)
    assert not checks["reason to move"].passed


def test_the_same_answers_are_no_reason(judge: Judge, model: Any) -> None:
    checks = judge(model(), model("champion"))
    assert failed(checks) == {"reason to move"}
    assert "the same answer to every picture" in checks["reason to move"].figure


def test_other_training_data_is_a_reason_if_it_is_accepted(judge: Judge, model: Any) -> None:
    champion = model("champion")
    champion.card["lineage"]["data_hash"] = "0" * 64
    assert failed(judge(model(), champion)) == set()
    assert failed(judge(model(), champion, accept_new_data=False)) == {"reason to move"}


def test_too_few_pictures_cannot_show_non_inferiority(judge: Judge, model: Any) -> None:
    checks = judge(model(skill=0.9, seed=2), model("champion"), non_inferiority_margin=0.0, min_log_loss_gain=0.0)
    assert not checks["non-inferior"].passed


def test_of_too_few_test_pictures_no_champion_is_replaced(judge: Judge, model: Any) -> None:
    champion = model("champion")
    champion.card["lineage"]["data_hash"] = "0" * 64
    count = len(Manifest.read().split("test"))
    assert failed(judge(model(), champion, min_test_pictures=count)) == set()
    assert failed(judge(model(), champion, min_test_pictures=count + 1)) == {"test pictures"}
    assert failed(judge(model(), min_test_pictures=count + 1)) == set()


def test_pictures_that_the_champion_learnt_from_do_not_count(manifest: Manifest, model: Any) -> None:
    """It is right on all that it has seen; the candidate is right on all others too."""
    candidate, champion = model(skill=0.97, seed=5), model("champion", skill=0.3, seed=1)
    pictures = manifest.split("test")
    theirs = Gate(candidate, champion, manifest, LIMITS).theirs
    right = frozenset(picture.sha256 for picture, good in zip(pictures, theirs.right, strict=True) if good)
    checks = {check.name: check for check in Gate(candidate, champion, manifest, LIMITS, right).judge()}
    assert checks["never worse"].figure.endswith("champion 0.0000")
    left = len(pictures) - len(right)
    assert checks["test pictures"].figure == (
        f"{left}; {len(right)} more do not count: the champion was trained on them"
    )
    everything = frozenset(picture.sha256 for picture in pictures)
    names = {check.name: check.passed for check in Gate(candidate, champion, manifest, LIMITS, everything).judge()}
    assert not names["test pictures"]
    assert "never worse" not in names


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({"min_accuracy": 0.99}, "accuracy"),
        ({"min_class_accuracy": 1.0}, "accuracy by class"),
        ({"min_slice_accuracy": 1.0}, "accuracy by slice"),
        ({"max_calibration_error": 0.0}, "calibration"),
        ({"max_size_mb": 0.001}, "size"),
    ],
)
def test_every_limit_is_a_parameter(judge: Judge, model: Any, limits: dict[str, float], name: str) -> None:
    candidate = model(sharpness=100.0) if name == "calibration" else model()
    assert failed(judge(candidate, **limits)) == {name}


def test_one_answer_to_everything_is_no_better_than_guessing(judge: Judge, model: Any) -> None:
    checks = judge(model(bias=100.0))
    assert "better than guessing" in failed(checks)
    assert checks["better than guessing"].figure == "balanced accuracy 0.5000, guessing 0.5000, p = 1, 200 pictures"


def guesses(labels: str, answers: str) -> float:
    return better_than_guessing(list(labels), np.array(list(answers)), 0.99, seed=1)[1]


def test_of_98_to_2_the_perfect_model_passes_and_the_constant_one_does_not() -> None:
    labels = "a" * 98 + "b" * 2
    assert guesses(labels, labels) < 0.01
    assert guesses(labels, "a" * 100) == 1


def test_few_pictures_are_enough_where_the_answers_are_right() -> None:
    assert guesses("aaaaabbbbb", "aaaaabbbbb") == pytest.approx(1 / 252, abs=0.004)  # ways to choose 5 of 10
    assert guesses("ab", "ab") == 0.5


def test_an_answer_that_no_test_picture_has_is_wrong() -> None:
    assert better_than_guessing(["a", "b"], np.array(["c", "b"]), 0.99, seed=1)[0] == 0.5


def test_without_floors_a_weak_class_is_named_and_passes(judge: Judge, model: Any) -> None:
    checks = judge(model(skill=0.3, seed=1))
    assert checks["accuracy by class"].passed
    assert re.fullmatch(r"worst 0\.\d{4} \[0\.\d{4}, 0\.\d{4}\]: (cat|dog), of 2", checks["accuracy by class"].figure)
    assert checks["accuracy by class"].limit == "no floor is set"


def test_a_class_fails_only_when_its_whole_interval_lies_below_the_floor(judge: Judge, model: Any) -> None:
    weak = model(skill=0.3, seed=1)
    low, high = map(float, re.findall(r"\[(.*), (.*)\]", judge(weak)["accuracy by class"].figure)[0])
    assert judge(weak, min_class_accuracy=(low + high) / 2)["accuracy by class"].passed
    assert not judge(weak, min_class_accuracy=high + 0.001)["accuracy by class"].passed


def test_only_changes_that_are_harmless_here_must_leave_answers_alone(judge: Judge, model: Any) -> None:
    candidate = model()
    behaviour = candidate.card["metrics"]["behaviour"]
    behaviour["invariance"]["mirrored"] = {"same_answer": {"value": 0.1, "interval": [0.0, 0.2]}}
    assert failed(judge(candidate)) == {"invariance"}
    behaviour["harmless"] = ["cropped"]
    assert failed(judge(candidate)) == set()
    behaviour["harmless"] = []
    assert failed(judge(candidate)) == set()


@pytest.mark.parametrize(("times", "passes"), [((9.0, 1.0), False), ((5.9, 1.0), True), ((140.0, 100.0), True)])
def test_latency_is_decided_by_the_ratio_above_the_floor(
    judge: Judge, model: Any, monkeypatch: pytest.MonkeyPatch, times: tuple[float, ...], passes: bool
) -> None:
    monkeypatch.setattr(gate_checks, "latencies_ms", lambda *_: list(times))
    assert judge(model(), model("champion", skill=0.3, seed=1))["latency"].passed is passes


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("parity", {"parity"}),
        ("lineage", {"same test data"}),
        ("metrics", {"recorded accuracy", "invariance", "direction", "named pictures"}),
        ("self_check", {"self-check"}),
    ],
)
def test_missing_evidence_fails(judge: Judge, model: Any, key: str, names: set[str]) -> None:
    candidate = model()
    candidate.card[key] = {}
    assert failed(judge(candidate)) == names


def test_behaviour_has_floors(judge: Judge, model: Any) -> None:
    candidate = model()
    behaviour = candidate.card["metrics"]["behaviour"]
    behaviour["invariance"]["mirrored"] = {"same_answer": {"value": 0.5, "interval": [0.4, 0.59]}}
    behaviour["direction"]["noisy"] = {"change": {"value": 0.1}}
    behaviour["minimum"] = {"pictures": 10, "right": 5, "wrong": ["a", "b"]}
    checks = judge(candidate)
    assert failed(checks) == {"invariance", "direction", "named pictures"}
    assert "mirrored" in checks["invariance"].figure
    assert "noisy" in checks["direction"].figure
    assert checks["named pictures"].figure == "5 of 10 right"


def test_a_test_split_without_named_pictures_passes(judge: Judge, model: Any) -> None:
    candidate = model()
    candidate.card["metrics"]["behaviour"]["minimum"] = {"pictures": 0, "right": 0, "wrong": []}
    assert judge(candidate)["named pictures"].passed


def as_int8(candidate: ModelFolder, **found: float) -> ModelFolder:
    candidate.card["precision"] = "int8"
    accuracy = candidate.card["metrics"]["accuracy"]
    candidate.card["metrics"]["quantisation"] = {"accuracy_fp32": accuracy, "label_changes": 0.0} | found
    return candidate


@pytest.mark.parametrize(
    ("found", "passes"),
    [({}, True), ({"accuracy_fp32": 1.0}, False), ({"label_changes": 0.01}, False)],
)
def test_int8_may_lose_little(judge: Judge, model: Any, found: dict[str, float], passes: bool) -> None:
    assert judge(as_int8(model(), **found))["int8"].passed is passes


def test_why_a_model_serves_in_fp32_stands_in_the_verdict(judge: Judge, model: Any) -> None:
    check = judge(model())["int8"]
    assert (check.passed, check.figure) == (True, "serves in fp32: a test says so")


def test_int8_without_evidence_fails(judge: Judge, model: Any) -> None:
    candidate = as_int8(model())
    del candidate.card["metrics"]["quantisation"]
    assert failed(judge(candidate)) == {"int8"}


@pytest.mark.parametrize(("times", "reason"), [((5.0, 7.0), True), ((6.5, 7.0), False)])
def test_int8_in_place_of_fp32_needs_to_be_faster(
    judge: Judge, model: Any, monkeypatch: pytest.MonkeyPatch, times: tuple[float, float], reason: bool
) -> None:
    monkeypatch.setattr(gate_checks, "latencies_ms", lambda *_: list(times))
    assert judge(as_int8(model()), model("champion"))["reason to move"].passed is reason
    assert not judge(model(), model("champion"))["reason to move"].passed
    assert not judge(as_int8(model()), as_int8(model("champion")))["reason to move"].passed


def test_int8_may_lose_to_a_champion_in_fp32_what_int8_may_lose(judge: Judge, model: Any) -> None:
    candidate, champion = model(skill=0.9, seed=2), model("champion")
    lost = champion.card["metrics"]["accuracy"] - candidate.card["metrics"]["accuracy"]
    assert lost > 0
    limits = {"max_int8_accuracy_loss": lost, "non_inferiority_margin": 0.5}
    assert not judge(candidate, champion, **limits)["never worse"].passed
    assert judge(as_int8(candidate), champion, **limits)["never worse"].passed
    assert not judge(as_int8(candidate), as_int8(champion), **limits)["never worse"].passed


def with_look(candidate: ModelFolder, **found: float) -> ModelFolder:
    candidate.card["glance"] = True
    accuracy = candidate.card["metrics"]["accuracy"]
    record = {"serves": True, "why": "quicker", "easy": 0.9, "accuracy_fp32": accuracy, "label_changes": 0.0}
    candidate.card["metrics"]["glance"] = record | found
    return candidate


@pytest.mark.parametrize(
    ("found", "passes"),
    [({}, True), ({"accuracy_fp32": 1.0}, False), ({"label_changes": 0.01}, False)],
)
def test_a_first_look_may_lose_as_little(judge: Judge, model: Any, found: dict[str, float], passes: bool) -> None:
    assert judge(with_look(model(), **found))["first look"].passed is passes


def test_a_first_look_without_evidence_fails_and_none_says_why(judge: Judge, model: Any) -> None:
    candidate = with_look(model())
    del candidate.card["metrics"]["glance"]
    assert failed(judge(candidate)) == {"first look"}
    assert judge(model())["first look"].figure == "none: a test does without"


def test_one_shortcut_more_is_a_reason_and_one_for_another_is_none(
    judge: Judge, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_checks, "latencies_ms", lambda *_: [5.0, 7.0])
    both = with_look(as_int8(model("both")))
    found = judge(both, as_int8(model("champion")))["reason to move"]
    assert (found.passed, found.figure) == (True, "a first look: 1.40 times as fast")
    assert judge(both, model("plain"))["reason to move"].figure == "a first look and int8: 1.40 times as fast"
    assert not judge(with_look(model()), as_int8(model("champion")))["reason to move"].passed


def test_evidence_that_contradicts_fails(judge: Judge, model: Any) -> None:
    candidate = model()
    candidate.card["parity"]["max_difference"] = 0.01
    candidate.card["lineage"]["test_hash"] = "0" * 64
    candidate.card["metrics"]["accuracy"] -= 0.05
    candidate.card["self_check"][0]["probabilities"] = [0.5, 0.5]
    assert failed(judge(candidate)) == {"parity", "same test data", "recorded accuracy", "self-check"}


def test_classes_are_compared_by_name(judge: Judge, model: Any, tmp_path: Path) -> None:
    three = tiny_model_folder(tmp_path / "three", ("cat", "dog", "fox"))
    checks = judge(model(), three)
    assert "lacks fox" in checks["classes"].figure
    assert "register.name" in checks["classes"].limit
    swapped = model("swapped")
    rename(swapped, ["dog", "cat"])
    assert judge(model(), ModelFolder.open(swapped.path))["never worse"].passed


def rename(folder: ModelFolder, classes: list[str]) -> None:
    card = json.loads((folder.path / CARD_FILE).read_text()) | {"classes": classes}
    (folder.path / CARD_FILE).write_text(json.dumps(card))
    write_sums(folder.path)


def test_the_calibration_error_of_chance_is_what_a_calibrated_model_shows() -> None:
    from training.evaluation.metrics import calibration_error

    random = np.random.default_rng(3)
    confidence = random.uniform(0.5, 1, 120)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    errors = [calibration_error(probabilities, (random.random(120) > confidence).astype(np.int64)) for _ in range(300)]
    assert chance_calibration_error(confidence) == pytest.approx(np.mean(errors), rel=0.1)
