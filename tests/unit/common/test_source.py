"""What git says of the project's source, and what is said where it says nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import SOURCE, tiny_project
from training.common import source
from training.common.source import LineageError

START = "`git init && git add -A && git commit -m start`"
IDENTITY = ("-c", "user.name=test", "-c", "user.email=test@example.org")


def git(*words: str) -> None:
    subprocess.run(["git", *words], check=True, capture_output=True)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tiny_project(tmp_path / "project", per_class=4))
    return Path.cwd()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one, in no repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return tmp_path


@pytest.mark.parametrize("result", ["dvc.lock", "model_performance.json", "data/manifest.csv", "models/verdict.json"])
def test_what_the_pipeline_writes_is_not_dirt(project: Path, result: str) -> None:
    Path(result).parent.mkdir(exist_ok=True)
    Path(result).write_text("made anew")
    assert not source.is_dirty()


@pytest.mark.parametrize("path", ["params.yaml", "training/new.py"])
def test_a_changed_or_new_source_is_dirt(project: Path, path: str) -> None:
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text("# changed")
    assert source.is_dirty()


@pytest.fixture
def subfolder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in a folder of a bigger repository."""
    shutil.rmtree(tiny_project(folder / "big/vision", per_class=4) / ".git")
    monkeypatch.chdir("big")
    git("init", "-q")
    git("add", ".")
    git(*IDENTITY, "commit", "-q", "-m", "all")
    monkeypatch.chdir("vision")
    return Path.cwd()


def test_only_its_own_folder_counts_in_a_bigger_repository(subfolder: Path) -> None:
    assert len(source.commit()) == 40
    (subfolder.parent / "notes.txt").write_text("of another project")
    for result in ("dvc.lock", "models/verdict.json"):
        (subfolder / result).parent.mkdir(exist_ok=True)
        (subfolder / result).write_text("made anew")
    assert not source.is_dirty()
    (subfolder / "params.yaml").write_text("# changed")
    assert source.is_dirty()


def test_a_repository_that_lacks_the_project(subfolder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpacked into somebody's repository of all their settings, for example."""
    shutil.copytree(subfolder, subfolder.parent / "unpacked")
    monkeypatch.chdir("../unpacked")
    with pytest.raises(
        LineageError, match=rf"the git repository \S+/big has no commit of this project.*: {START} here"
    ):
        source.commit()


def test_outside_a_repository_it_says_what_to_do(folder: Path) -> None:
    with pytest.raises(LineageError, match=rf"^this is not a git repository .*: {START}, or clone the project$"):
        source.commit()


def test_before_the_first_commit_it_says_what_to_do(folder: Path) -> None:
    git("init", "-q")
    with pytest.raises(LineageError, match=r"no commit yet, .*: `git add -A && git commit -m start`$"):
        source.commit()


def test_a_folder_of_somebody_else(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")  # it may trust every folder
    with pytest.raises(LineageError) as error:
        source.commit()
    assert str(error.value) == (
        f"git does not trust {project}, which belongs to another user: "
        f"`git config --global --add safe.directory '{project}'`"
    )


def test_without_git_it_says_so(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LineageError, match=r"git is not installed: .*`apt install git`"):
        source.commit()


@pytest.mark.parametrize("target", ["run", "pipeline"])
def test_make_says_so_before_it_installs_anything(folder: Path, target: str) -> None:
    """A download without .git: the check needs none of the packages."""
    shutil.copy(SOURCE / "Makefile", folder)
    shutil.copytree(SOURCE / "training/common", folder / "training/common")
    shutil.copy(SOURCE / "training/__init__.py", folder / "training")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", target, f"PYTHON={sys.executable} -S"]  # -S: without the packages that are installed here
    done = subprocess.run(command, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: this is not a git repository (a download has no .git)"), done.stderr
    assert not (folder / ".venv").exists()
