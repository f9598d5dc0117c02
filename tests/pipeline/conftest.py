"""A tiny project with real stores of its own: MLflow on SQLite, a BentoML home, git."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.acting import FAIR, GOOD, promoted, restore
from tests.pipeline.serving import mlflow_server
from tests.tiny import tiny_project


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_arrives() -> Iterator[None]:
    """A shell lets what it starts with & ignore SIGINT, and children inherit that: the tests of Ctrl-C would wait."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny project, with the tables of MLflow already in place: making them takes seconds."""
    import mlflow

    root = tiny_project(tmp_path_factory.mktemp("template") / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)  # MLflow notes where artifacts will lie
        mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db").search_experiments()
    return root


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh copy of it, current folder and environment set."""
    shutil.copytree(template, tmp_path / "project")
    return enter(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def server_folder(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server keeps its database and its artifacts."""
    root = tmp_path_factory.mktemp("server")
    shutil.copy(template / "mlflow.db", root / "mlflow.db")
    return root


@pytest.fixture(scope="session")
def server(server_folder: Path) -> Iterator[str]:
    """`mlflow server` with an artifact store of its own: starting one takes ten seconds, so all tests share it."""
    with mlflow_server(server_folder) as url:
        yield url


@pytest.fixture(scope="session")
def promoted_twice(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a project whose registry has a champion (version 2) and a previous (version 1), and copies."""
    root = tmp_path_factory.mktemp("two")
    shutil.copytree(template, root / "project")
    with pytest.MonkeyPatch.context() as patch:
        enter(root, patch)
        promoted(root / "project", **FAIR)
        promoted(root / "project", **GOOD)
    for name in ("project", "bentoml"):
        shutil.copytree(root / name, root / "kept" / name)
    return root


@pytest.fixture
def two(promoted_twice: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That project as it was made, current folder and environment set."""
    for name in ("project", "bentoml"):
        restore(promoted_twice / "kept" / name, promoted_twice / name)
    return enter(promoted_twice, monkeypatch)


def enter(root: Path, patch: pytest.MonkeyPatch) -> Path:
    """Go into the project under `root`; its stores lie beside and in it."""
    project = root / "project"
    patch.chdir(project)
    patch.setenv("BENTOML_HOME", str(root / "bentoml"))
    patch.setenv("BENTOML_DO_NOT_TRACK", "true")
    patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db")
    patch.delenv("MODEL_PUBLIC_KEY", raising=False)
    return project
