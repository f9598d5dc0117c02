from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.acting import FAIR, GOOD, NAME, POOR, aliases, promoted, registered
from tests.pipeline.dying import deaths_from_here, state
from tests.tiny import tiny_export
from training import params, promote
from training.gate.verdict import VERDICT_FILE
from training.model import pin as pin_file
from training.model import tracking
from training.registry import bento_store, pull
from training.registry.mlflow_store import Registry, RegistryError


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The command as typed; its exit code."""
    monkeypatch.setattr(sys, "argv", ["promote", *words])
    try:
        promote.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_first_version_becomes_champion_through_the_gate(project: Path) -> None:
    outcome = promoted(project, **FAIR)
    assert outcome.verdict is not None
    assert outcome.verdict.gate == "pass"
    assert aliases() == {"champion": "1"}
    pin = pin_file.read()
    version = Registry(NAME).version("1")
    assert (pin.mlflow_version, pin.run_id, pin.bento_tag) == ("1", version.run_id, version.bento_tag)
    named = tracking.registry_champion(NAME, pin.tracking_uri, project)
    assert named == tracking.RegistryChampion("1", pin.model_sha256)


def test_a_better_candidate_is_promoted(project: Path) -> None:
    promoted(project, **FAIR)
    outcome = promoted(project, **GOOD)
    assert outcome.sentence().startswith("promoted: version 2")
    assert aliases() == {"champion": "2", "previous": "1"}
    assert pin_file.read().mlflow_version == "2"


def test_test_pictures_that_the_champion_learnt_from_are_left_out_of_the_comparison(project: Path) -> None:
    promoted(project, **FAIR)
    manifest = project / "data/manifest.csv"
    manifest.write_text(manifest.read_text().replace(",train,", ",test,", 20))  # as when prepare.test is raised
    verdict = promoted(project, **GOOD).verdict
    assert verdict is not None
    figures = {check["name"]: check["figure"] for check in verdict.checks}
    assert figures["test pictures"] == "100; 20 more do not count: the champion was trained on them"
    assert figures["better than guessing"].endswith("120 pictures")


def test_a_champion_that_may_know_the_test_pictures_is_not_compared_with(project: Path) -> None:
    promoted(project, **FAIR)
    (kept,) = (path for path in project.rglob("manifest.csv") if path.parent.parent != project)
    kept.unlink()
    manifest = project / "data/manifest.csv"
    manifest.write_text(manifest.read_text().replace(",train,", ",test,", 20))
    with pytest.raises(RegistryError, match=r"the run of version 1 has no .*manifest.csv"):
        promoted(project, **GOOD)
    assert aliases()["champion"] == "1"
    outcome = promoted(project, force="its pictures are lost", **GOOD)
    assert outcome.verdict is not None
    assert [check["name"] for check in outcome.verdict.checks if not check["passed"]] == ["champion readable"]


def test_a_worse_candidate_is_kept_out_and_the_verdict_is_written(project: Path) -> None:
    promoted(project, **GOOD)
    pin = pin_file.PIN_FILE.read_bytes()
    outcome = promoted(project, **POOR)
    assert outcome.kept_out
    assert aliases() == {"champion": "1", "challenger": "2"}
    assert pin_file.PIN_FILE.read_bytes() == pin
    verdict = json.loads(VERDICT_FILE.read_text())
    assert (verdict["gate"], verdict["passed"]) == ("fail", False)
    assert {"never worse", "reason to move"} <= {c["name"] for c in verdict["checks"] if not c["passed"]}
    registry = Registry(NAME)
    tags = registry.version("2").tags
    assert tags["gate"] == "fail"
    assert "never worse: 0." in tags["gate_reasons"]
    label = bento_store.labels(tags["bento_tag"])["verdict"]
    assert label == tags["gate_verdict"] == f"runs:/{registry.version('2').run_id}/gate/verdict.json"
    import mlflow

    assert json.loads(mlflow.artifacts.load_text(label)) == verdict


def test_exit_codes_and_words(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    promoted(project, **GOOD)
    assert run(monkeypatch) == 0
    assert "already the champion" in capsys.readouterr().out
    registered(project, **POOR)
    assert run(monkeypatch) == 1
    assert "kept the champion: version 1" in capsys.readouterr().out
    assert run(monkeypatch, "--in-pipeline") == 0
    printed = capsys.readouterr().out
    assert "kept the champion: version 1" in printed
    assert re.search(r"never worse +FAIL", printed)
    assert run(monkeypatch, "--force") == 2
    assert run(monkeypatch, "--reason", "no force") == 2
    assert run(monkeypatch, "--force", "--reason", "a demonstration") == 0
    assert "promoted by force: version 2" in capsys.readouterr().out


def test_a_failed_first_model_fails_the_pipeline_too(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registered(project, **POOR)
    assert run(monkeypatch, "--in-pipeline", "--min-accuracy", "0.99") == 1
    assert aliases() == {"challenger": "1"}
    assert not pin_file.PIN_FILE.exists()


def test_force_is_recorded(project: Path) -> None:
    promoted(project, **GOOD)
    outcome = promoted(project, force="the camera changed", **POOR)
    assert outcome.verdict is not None
    assert outcome.verdict.gate == "forced"
    tags = Registry(NAME).version("2").tags
    assert (tags["gate"], tags["promoted_because"]) == ("forced", "the camera changed")
    assert json.loads(VERDICT_FILE.read_text())["forced"] == "the camera changed"
    assert aliases() == {"champion": "2", "previous": "1"}


def test_a_second_verdict_on_the_same_question_is_recalled(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    promoted(project, **GOOD)
    first = promoted(project, **POOR).verdict
    monkeypatch.setattr(promote, "promote", lambda *_: pytest.fail("judged again"))
    folder = tiny_export(project, **POOR)
    known = promote.already_decided(folder, params.load())
    assert known is not None
    assert known.verdict == first
    other = params.load()
    other = other.model_copy(update={"promote": other.promote.model_copy(update={"seed": 2})})
    assert promote.already_decided(folder, other) is None


def test_nothing_is_decided_where_the_pin_disagrees(project: Path) -> None:
    promoted(project, **GOOD)
    folder = tiny_export(project, **GOOD)
    assert promote.already_decided(folder, params.load()) is not None
    pin = pin_file.read()
    pin_file.write(pin_file.Champion(**{**vars(pin), "mlflow_version": "9"}))
    assert promote.already_decided(folder, params.load()) is None
    assert promote.promote(folder, params.load()).verdict is None
    assert pin_file.read() == pin


def test_an_unregistered_candidate_names_the_command(project: Path) -> None:
    folder = tiny_export(project)
    with pytest.raises(RegistryError, match=r"python -m training\.register"):
        promote.promote(folder, params.load())


def test_a_champion_that_changes_meanwhile_is_judged_against_anew(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(project, **FAIR)
    registered(project, **GOOD)
    third = registered(project, **POOR)
    real, seen = promote.judge, []

    def judge(registry: Registry, folder: Any, candidate: Any, former: Any, *rest: Any) -> Any:
        seen.append((candidate.number, former.number))
        verdict = real(registry, folder, candidate, former, *rest)
        if len(seen) == 1:
            promote.promote(pull.fetch(registry, registry.version("2")), params.load())  # as another machine does
        return verdict

    monkeypatch.setattr(promote, "judge", judge)
    outcome = promote.promote(tiny_export(project, **POOR), params.load())
    assert seen == [(third.number, "1"), ("2", "1"), (third.number, "2")]
    assert outcome.kept_out
    assert aliases() == {"champion": "2", "previous": "1", "challenger": third.number}


def test_killed_before_any_change_the_next_run_repairs(project: Path) -> None:
    promoted(project, **FAIR)
    version = registered(project, **GOOD)
    for _ in deaths_from_here("promote"):
        assert state().aliases == {"champion": version.number, "previous": "1"}
        assert tracking.JOURNAL_TAG not in state().marks
        assert pin_file.read().mlflow_version == version.number
        assert VERDICT_FILE.is_file()
