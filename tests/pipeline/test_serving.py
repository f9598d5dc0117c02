"""One source of truth, end to end: what the registry calls champion is what `bentoml serve` and `bentoml build` use."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml
from mlflow import MlflowClient

from tests.pipeline.acting import FAIR, GOOD, POOR, promoted, registered
from tests.pipeline.test_promote import run
from tests.service.server import ROOT, Server, copy_project, environment
from tests.service.test_startup import make_bento, refusal
from tests.tiny import tiny_picture
from tests.unit.model.test_signing import key_pair
from training.model import pin
from training.model.signing import sign
from training.registry import __main__ as registry
from training.registry import bento_store
from training.registry.mlflow_store import Registry

PICTURES = [tiny_picture(number % 2, 500 + number) for number in range(6)]


@pytest.fixture
def served(project: Path) -> Path:
    """The registry's project with what `bentoml serve` and `bentoml build` need; its BentoML home is `home`."""
    copy_project(project)
    for name in ("requirements-serve.lock", "README.md"):
        shutil.copy(ROOT / name, project / name)
    (project / "home").symlink_to(os.environ["BENTOML_HOME"])
    return project


def answers(project: Path) -> list[bytes]:
    """The bytes of all answers of a freshly started service, without the parts that differ by request."""
    server = Server.start(project, project / "home", MLFLOW_TRACKING_URI=os.environ["MLFLOW_TRACKING_URI"])
    try:
        with httpx.Client(base_url=server.url, timeout=20, headers={"X-Request-ID": "always-the-same"}) as client:
            return [client.post("/predict?abstain=false", files={"image": data}).content for data in PICTURES]
    finally:
        assert server.stop() == 0


def test_served_answers_follow_the_alias_and_return_bit_for_bit(served: Path) -> None:
    promoted(served, **FAIR)
    first = answers(served)
    kept_out = promoted(served, **POOR)
    assert kept_out.kept_out
    assert answers(served) == first
    assert not promoted(served, **GOOD).kept_out
    assert answers(served) != first
    registry.rollback(Registry("cats-vs-dogs"), "the test says so")
    assert answers(served) == first


def test_an_alias_that_was_moved_by_hand_is_neither_served_nor_built(served: Path) -> None:
    promoted(served, **FAIR)
    version = registered(served, **GOOD)
    Registry("cats-vs-dogs").set_alias("champion", version.number)
    words = "`python -m training.promote --version 2` judges it"
    assert words in refusal(served, MLFLOW_TRACKING_URI=os.environ["MLFLOW_TRACKING_URI"])
    assert words in refused_build(served)


def test_a_bento_keeps_its_model_whatever_becomes_champion(served: Path) -> None:
    """Also with the registry in reach: a deployed Bento must start again after the next promotion."""
    promoted(served, **FAIR)
    pinned = pin.read()
    built = make_bento(served)
    promoted(served, **GOOD)
    assert pin.read().bento_tag != pinned.bento_tag
    description = yaml.safe_load((built / "bento.yaml").read_text())
    [service] = description["services"]
    assert [model["tag"] for model in service["models"]] == [pinned.bento_tag]
    assert description["labels"]["verdict"] == f"runs:/{pinned.run_id}/gate/verdict.json"
    assert pin.read(built / "src/models/champion.json") == pinned
    assert built.name in str(bento_store.bentos()[pinned.bento_tag])
    server = Server.start(built / "src", served / "home", MLFLOW_TRACKING_URI=os.environ["MLFLOW_TRACKING_URI"])
    try:
        assert httpx.get(f"{server.url}/health", timeout=20).json()["model"]["bento_tag"] == pinned.bento_tag
    finally:
        assert server.stop() == 0


def test_a_bento_holds_nothing_but_what_it_serves(served: Path) -> None:
    promoted(served, **GOOD)
    built = make_bento(served)
    assert {path.name for path in (built / "src").iterdir()} <= {
        "bentofile.yaml",
        "README.md",
        "models",
        "params.yaml",
        "requirements-serve.lock",
        "service.py",
        "training",
    }
    assert [path.name for path in (built / "src").rglob("params.yaml")] == ["params.yaml"]


def test_what_would_not_be_served_is_not_built(served: Path) -> None:
    promoted(served, **GOOD)
    registered(served, **FAIR)
    MlflowClient().set_registered_model_alias("cats-vs-dogs", "champion", "2")
    assert "is version 2" in refused_build(served)
    MlflowClient().set_registered_model_alias("cats-vs-dogs", "champion", "1")
    stored = bento_store.path_of(pin.read().bento_tag) / "model.onnx"
    stored.write_bytes(stored.read_bytes()[:-1] + b"?")
    assert "model.onnx was changed" in refused_build(served)
    assert not list((served / "home/bentos").glob("*/*/bento.yaml"))


def refused_build(project: Path) -> str:
    """What `bentoml build` says when it refuses."""
    command = [str(Path(sys.executable).parent / "bentoml"), "build"]
    where = environment(project / "home", MLFLOW_TRACKING_URI=os.environ["MLFLOW_TRACKING_URI"])
    done = subprocess.run(command, cwd=project, env=where, capture_output=True, text=True)
    assert done.returncode != 0, done.stdout
    return done.stdout + done.stderr


def test_signatures_are_demanded_at_start_where_a_key_is_configured(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First that of the folder, then that of the verdict."""
    promoted(served, **GOOD)
    private, public = key_pair(tmp_path, "key")
    where = {"MODEL_PUBLIC_KEY": str(public), "MLFLOW_TRACKING_URI": os.environ["MLFLOW_TRACKING_URI"]}
    assert "is not signed, but MODEL_PUBLIC_KEY requires it" in refusal(served, **where)
    folder = bento_store.find(pin.read().bento_tag)
    assert folder is not None
    sign(folder.path, private)
    words = (
        "a verdict that is not signed by .*: set register.signing_key, then `python -m training.promote --version 1`"
    )
    assert re.search(words, refusal(served, **where))
    settings = served / "params.yaml"
    settings.write_text(settings.read_text().replace("signing_key: null", f"signing_key: {private}"))
    monkeypatch.setenv("MODEL_PUBLIC_KEY", str(public))
    assert run(monkeypatch, "--version", "1") == 0
    server = Server.start(served, served / "home", **where)
    assert server.stop() == 0
