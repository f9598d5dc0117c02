"""A tiny project with real stores of its own: MLflow on SQLite, a BentoML home, git."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.tiny import tiny_project


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny project, with the tables of MLflow already in place: making them takes seconds."""
    import mlflow

    root = tiny_project(tmp_path_factory.mktemp("template") / "project")
    mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db").search_experiments()
    return root


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh copy of it, current folder and environment set."""
    root = tmp_path / "project"
    shutil.copytree(template, root)
    monkeypatch.chdir(root)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    monkeypatch.setenv("BENTOML_DO_NOT_TRACK", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
    monkeypatch.delenv("MODEL_PUBLIC_KEY", raising=False)
    return root
