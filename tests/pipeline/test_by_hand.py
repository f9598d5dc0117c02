"""The alias `champion`, moved by hand as on MLflow's page: nobody believes it before the gate has judged."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from k8s import deploy
from k8s.target import MODEL_LABEL, Image
from tests.pipeline.acting import FAIR, GOOD, NAME, POOR, aliases, promoted, registered
from tests.pipeline.test_promote import run
from tests.unit.model.test_signing import key_pair
from training import image
from training.model import judged
from training.model import pin as pin_file
from training.model.judged import NotJudgedError
from training.model.pin import ChampionError
from training.registry import __main__ as registry
from training.registry import bento_store
from training.registry.mlflow_store import ADMITTED_PATH, VERDICT_PATH, Registry, RegistryError, Version


def unjudged(project: Path) -> Version:
    return registered(project, **POOR)


def failed(project: Path) -> Version:
    outcome = promoted(project, **POOR)
    assert outcome.kept_out
    return Registry(NAME).version(outcome.candidate.version)


def with_forged_tags(project: Path) -> Version:
    """One that failed, with the tags of one that passed."""
    version, good = failed(project), Registry(NAME).version("2")
    tags = {key: value for key, value in good.tags.items() if key.startswith(("gate", "promoted"))}
    assert tags["gate"] == "pass"
    Registry(NAME).tag_version(version.number, tags)
    return version


def with_the_verdict_of_another(project: Path) -> Version:
    version, here = failed(project), Registry(NAME)
    here.client.log_dict(version.run_id, here.verdict(here.version("2")) or {}, ADMITTED_PATH)
    return version


def with_an_altered_verdict(project: Path) -> Version:
    version, here = failed(project), Registry(NAME)
    here.client.log_dict(version.run_id, (here.verdict(version) or {}) | {"gate": "pass"}, VERDICT_PATH)
    return version


@pytest.mark.parametrize(
    "make", [unjudged, failed, with_forged_tags, with_the_verdict_of_another, with_an_altered_verdict]
)
def test_every_reader_refuses_and_names_the_command(
    two: Path, make: Callable[[Path], Version], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = make(two)
    pin, before = pin_file.read(), pin_file.PIN_FILE.read_bytes()
    Registry(NAME).set_alias("champion", version.number)
    monkeypatch.setattr(sys, "argv", ["image"])
    monkeypatch.setattr(deploy, "ROOT", two)
    monkeypatch.setattr(image, "build", lambda _: pytest.fail("built"))
    rolled_out = Image("image", "sha256:0", "image", {MODEL_LABEL: pin.bento_tag})
    readers: dict[str, Callable[[], object]] = {
        "pull": lambda: registry.main(["pull"]),
        "start": lambda: judged.confirm(pin),
        "image": image.main,
        "deploy": lambda: deploy.demand_verdict(rolled_out),
    }
    mend = f"`python -m training.promote --version {version.number}` judges it"
    for name, reader in readers.items():
        with pytest.raises(ChampionError) as caught:
            reader()
        assert str(caught.value).endswith(mend), name
        assert len(str(caught.value).splitlines()) == 1, name
    capsys.readouterr()
    with pytest.raises(SystemExit):
        registry.main(["status"])
    assert capsys.readouterr().out.rstrip().endswith(mend)
    assert pin_file.PIN_FILE.read_bytes() == before


def test_a_pin_of_such_a_version_is_not_believed_either(two: Path) -> None:
    """As one that an older pull made."""
    from training.registry import aliases as moves

    version = failed(two)
    Registry(NAME).set_alias("champion", version.number)
    assert moves.pin(Registry(NAME)) is not None
    with pytest.raises(NotJudgedError, match=r"moved by hand: it failed the gate \(.*never worse"):
        judged.demand_of_pin(pin_file.read())


def test_a_former_champion_may_be_named_by_hand(two: Path) -> None:
    """The gate let it through, and these are the same bytes."""
    Registry(NAME).set_alias("champion", "1")
    registry.main(["pull"])
    assert pin_file.read().mlflow_version == "1"
    registry.main(["status"])


def test_an_unjudged_one_that_passes_stays_and_the_former_is_previous(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    promoted(project, **FAIR)
    version = registered(project, **GOOD)
    Registry(NAME).set_alias("champion", version.number)
    assert run(monkeypatch, "--version", version.number) == 0
    assert "promoted: version 2" in capsys.readouterr().out
    assert aliases() == {"champion": "2", "previous": "1"}
    assert judged.confirm(pin_file.read()).gate == "pass"
    registry.main(["status"])


def test_one_that_fails_gives_the_alias_back(
    two: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    version = registered(two, **POOR)
    before = aliases()
    Registry(NAME).set_alias("champion", version.number)
    assert run(monkeypatch, "--version", version.number) == 1
    assert "kept the champion: version 2" in capsys.readouterr().out
    assert aliases() == before == {"champion": "2", "previous": "1", "challenger": version.number}
    registry.main(["status"])
    assert "agree" in capsys.readouterr().out


def test_without_a_former_champion_there_is_none_then(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = registered(project, **POOR)
    Registry(NAME).set_alias("champion", version.number)
    assert run(monkeypatch, "--version", version.number, "--min-accuracy", "0.99") == 1
    assert aliases() == {"challenger": version.number}


def test_another_candidate_waits_until_the_moved_alias_is_judged(two: Path) -> None:
    version = registered(two, **POOR)
    Registry(NAME).set_alias("champion", version.number)
    with pytest.raises(NotJudgedError, match=f"--version {version.number}` judges it"):
        promoted(two, skill=0.9, seed=3)
    assert aliases()["champion"] == version.number


def test_a_champion_that_loses_later_may_still_be_gone_back_to(two: Path) -> None:
    """The pipeline makes the former model again, which fails before the better one: that takes nothing from it."""
    outcome = promoted(two, **FAIR)
    assert outcome.kept_out
    assert Registry(NAME).version("1").tags["gate"] == "fail"
    assert "version 1" in registry.rollback(Registry(NAME), "a test")
    assert judged.confirm(pin_file.read()).gate == "pass"


def test_what_was_rolled_back_is_not_believed_again(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Registry(NAME)
    registry.rollback(here, "it confused horses")
    here.set_alias("champion", "2")
    with pytest.raises(NotJudgedError, match=r"it was rolled back .* it confused horses: .*--version 2"):
        registry.main(["pull"])
    assert run(monkeypatch, "--version", "2") == 1
    assert aliases() == {"champion": "1", "challenger": "2"}


def test_rollback_does_not_go_to_a_version_that_the_gate_kept_out(two: Path) -> None:
    version = failed(two)
    Registry(NAME).set_alias("previous", version.number)
    with pytest.raises(NotJudgedError, match="it failed the gate"):
        registry.rollback(Registry(NAME), "a test")
    assert aliases()["champion"] == "2"


def test_why_the_gate_was_overruled_is_told_everywhere(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    promoted(two, force="the camera changed", **POOR)
    told = "forced past the gate: the camera changed"
    for words in (["status"], ["show", "champion"]):
        registry.main(words)
        assert told in capsys.readouterr().out
    registry.main(["list"])
    assert "forced: the camera changed" in capsys.readouterr().out
    assert str(judged.demand_of_pin(pin_file.read())) == told


def test_where_verdicts_are_signed_a_forged_one_does_not_pass(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = key_pair(tmp_path, "key")
    settings = Path("params.yaml")
    settings.write_text(settings.read_text().replace("signing_key: null", f"signing_key: {private}"))
    monkeypatch.setenv("MODEL_PUBLIC_KEY", str(public))
    promoted(project, **GOOD)
    assert judged.confirm(pin_file.read()).gate == "pass"
    version, here = failed(project), Registry(NAME)
    forged = here.verdict(version) or {}
    for check in forged["checks"]:
        check["passed"] = True
    here.client.log_dict(version.run_id, forged | {"gate": "pass"}, VERDICT_PATH)
    here.set_alias("champion", version.number)
    with pytest.raises(NotJudgedError, match="a verdict that is not signed by"):
        registry.main(["pull"])
    assert run(monkeypatch, "--version", version.number) == 1
    assert aliases()["champion"] == "1"


def test_a_version_without_lineage_is_refused_as_before(two: Path) -> None:
    made = Registry(NAME).client.create_model_version(NAME, "file:///nowhere", run_id=None)
    Registry(NAME).set_alias("champion", str(made.version))
    with pytest.raises(RegistryError, match=r"was not made by training\.register"):
        registry.main(["pull"])
    assert bento_store.is_whole(pin_file.read().bento_tag)
