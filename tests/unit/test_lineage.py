from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.tiny import tiny_project
from training import lineage, params
from training.dataset import DatasetError, Manifest
from training.lineage import LineageError, collect


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tiny_project(tmp_path / "project", per_class=4))
    return Path.cwd()


def test_collects_commit_data_and_parameters(project: Path) -> None:
    settings = params.load()
    found = collect(settings, seed=7)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    manifest = Manifest.read()
    assert (found.git_commit, found.git_dirty) == (head, False)
    assert (found.data_hash, found.test_hash) == (manifest.sha256, manifest.test_sha256)
    assert (found.params_hash, found.seed) == (settings.sha256(), 7)
    assert {"python", "platform", "onnxruntime", "torch"} <= found.environment.keys()
    assert found.as_dict()["git_commit"] == head


@pytest.mark.parametrize("result", ["dvc.lock", "model_performance.json", "data/manifest.csv", "models/verdict.json"])
def test_what_the_pipeline_writes_is_not_dirt(project: Path, result: str) -> None:
    Path(result).parent.mkdir(exist_ok=True)
    Path(result).write_text("made anew")
    assert not lineage.is_dirty()


@pytest.mark.parametrize("source", ["params.yaml", "training/new.py"])
def test_a_changed_or_new_source_is_dirt(project: Path, source: str) -> None:
    Path(source).parent.mkdir(exist_ok=True)
    Path(source).write_text("# changed")
    assert lineage.is_dirty()


def test_outside_a_repository_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(LineageError, match=r"not a git repository.*clone the project"):
        lineage.commit()


def test_before_the_first_commit_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    with pytest.raises(LineageError, match="no commit yet: commit first"):
        lineage.commit()


def test_without_git_it_says_so(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LineageError, match="git is not installed"):
        lineage.commit()


def test_without_data_there_is_no_lineage(project: Path) -> None:
    with pytest.raises(DatasetError, match="dvc repro prepare"):
        collect(params.load(), Path("data/none.csv"))
