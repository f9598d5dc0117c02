from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from data.manifest import Manifest
from tests.tiny import tiny_project
from training import params
from training.model.lineage import collect


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tiny_project(tmp_path / "project", per_class=4))
    return Path.cwd()


def test_collects_commit_data_and_parameters(project: Path) -> None:
    settings = params.load()
    manifest = Manifest.read()
    found = collect(settings, manifest.sha256, manifest.test_sha256, seed=7)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert (found.git_commit, found.git_dirty) == (head, False)
    assert (found.data_hash, found.test_hash) == (manifest.sha256, manifest.test_sha256)
    assert (found.params_hash, found.seed) == (settings.sha256(), 7)
    assert {"python", "platform", "onnxruntime", "torch"} <= found.environment.keys()
    assert found.as_dict()["git_commit"] == head
