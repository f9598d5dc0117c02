"""A project that is copied or moved: MLflow's database names paths, and they follow."""

from __future__ import annotations

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.pipeline.acting import NAME, POOR, promoted
from tests.pipeline.conftest import enter
from training.registry import __main__ as registry
from training.registry import moved
from training.registry.mlflow_store import Registry


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def everything(database: Path) -> str:
    with closing(sqlite3.connect(database)) as connection:
        return "\n".join(connection.iterdump())


def test_a_copy_and_a_moved_project_keep_to_themselves(
    promoted_twice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = promoted_twice / "project"
    before = files(original)
    shutil.copytree(promoted_twice / "kept/project", tmp_path / "copy/project")
    enter(tmp_path / "copy", monkeypatch)
    registry.main(["pull"])  # into an empty BentoML store
    registry.main(["status"])
    shown = capsys.readouterr()
    assert "registry, pin and BentoML store agree" in shown.out
    assert re.search(
        rf"this project was moved: sqlite:///\S+/mlflow\.db now points to its own .*{original}/mlruns", shown.err
    )
    assert shown.err.count("this project was moved") == 1

    (tmp_path / "copy").rename(tmp_path / "moved & renamed")
    project = enter(tmp_path / "moved & renamed", monkeypatch)
    shutil.rmtree(tmp_path / "moved & renamed/bentoml")
    outcome = promoted(project, **POOR, force="a third model")
    registry.main(["rollback", "--reason", "back to the one before"])  # which is downloaded
    assert outcome.candidate.version == "3"
    assert Registry(NAME).aliases()["champion"] == "2"
    assert files(original) == before
    assert {path.name for path in tmp_path.iterdir()} == {"moved & renamed"}
    told = everything(project / "mlflow.db")
    assert str(original) not in told
    assert str(tmp_path / "copy") not in told
    assert f"{project}/mlruns/1" in told


def test_a_database_whose_artifacts_lie_elsewhere_on_purpose_stays(template: Path, tmp_path: Path) -> None:
    shutil.copy(template / "mlflow.db", tmp_path)
    uri, elsewhere = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "elsewhere/mlruns"
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE experiments SET artifact_location = ?", (f"{elsewhere}/0",))
        made = f"{elsewhere}/0/r/artifacts"
        connection.execute("INSERT INTO runs (run_uuid, artifact_uri, experiment_id) VALUES ('r', ?, 0)", (made,))
    before = everything(tmp_path / "mlflow.db")
    assert moved.follow(uri) == []
    (tmp_path / "mlruns").mkdir()
    assert moved.follow(uri) == []  # the folder beside it is of something else: it holds none of its runs
    assert everything(tmp_path / "mlflow.db") == before
    (tmp_path / "mlruns/0/r/artifacts").mkdir(parents=True)
    assert moved.follow(uri) == [str(elsewhere)]
    assert f"'{tmp_path}/mlruns/0/r/artifacts'" in everything(tmp_path / "mlflow.db")
    assert moved.follow(uri) == []


def test_what_is_no_database_of_mlflow(tmp_path: Path) -> None:
    (tmp_path / "mlruns").mkdir()
    assert moved.follow("http://127.0.0.1:5000") == []
    assert moved.follow(f"sqlite:///{tmp_path}/none.db") == []
    (tmp_path / "empty.db").touch()
    assert moved.follow(f"sqlite:///{tmp_path}/empty.db") == []
    (tmp_path / "text.db").write_text("no database" * 1000)
    with pytest.raises(moved.MovedError, match=r"text\.db .*cannot be mended: file is not a database"):
        moved.follow(f"sqlite:///{tmp_path}/text.db")


def test_a_path_that_mlflow_reads_as_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my%20project").mkdir()
    monkeypatch.chdir(tmp_path / "my%20project")
    with pytest.raises(
        moved.MovedError, match=r"my%20project for \S+/my project: rename the folder so that it has no %"
    ):
        moved.tell("sqlite:///mlflow.db")
    (tmp_path / "100 %").mkdir()
    monkeypatch.chdir(tmp_path / "100 %")
    moved.tell("sqlite:///mlflow.db")
