"""One source of truth, end to end: what the registry calls champion is what `bentoml serve` and `bentoml build` use."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import httpx
import pytest

from tests.pipeline.acting import FAIR, GOOD, POOR, promoted
from tests.service.server import ROOT, Server, copy_project
from tests.service.test_startup import make_bento, refusal
from tests.tiny import tiny_picture
from tests.unit.test_signing import key_pair
from training import bento_store, champion, registry
from training.mlflow_store import Registry
from training.signing import sign

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


def test_a_bento_keeps_its_model_and_gc_keeps_a_bento_s_model(served: Path) -> None:
    promoted(served, **FAIR)
    pinned = champion.read()
    built = make_bento(served)
    promoted(served, **GOOD)
    assert champion.read().bento_tag != pinned.bento_tag
    assert pinned.bento_tag in (built / "bento.yaml").read_text()
    assert champion.read(built / "src/models/champion.json") == pinned
    assert built.name in str(bento_store.bentos()[pinned.bento_tag])


def test_a_signature_is_demanded_at_start_where_a_key_is_configured(served: Path, tmp_path: Path) -> None:
    promoted(served, **GOOD)
    private, public = key_pair(tmp_path, "key")
    where = {"MODEL_PUBLIC_KEY": str(public), "MLFLOW_TRACKING_URI": os.environ["MLFLOW_TRACKING_URI"]}
    assert "is not signed, but MODEL_PUBLIC_KEY demands it" in refusal(served, **where)
    folder = bento_store.find(champion.read().bento_tag)
    assert folder is not None
    sign(folder.path, private)
    server = Server.start(served, served / "home", **where)
    assert server.stop() == 0
