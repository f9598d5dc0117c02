"""`make tools` installs what is missing, and leaves what is here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.killing import environment
from tests.parts import ROOT

APT = """#!/bin/sh
echo "$@" >> {folder}/asked
case "$*" in
  *nodejs*) echo '#!/bin/sh' > {folder}/node; chmod +x {folder}/node;;
  *curl) exit 100;;
esac
"""


def tools(path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.tools", *words]
    where = environment() | {"PATH": str(path)}
    return subprocess.run(command, cwd=ROOT, env=where, capture_output=True, text=True, timeout=60)


@pytest.fixture
def debian(tmp_path: Path) -> Path:
    """A PATH with an apt-get that knows nodejs and has no curl; sudo does as it is asked."""
    for name in ("sh", "env", "chmod"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    for name, text in {"apt-get": APT.format(folder=tmp_path), "sudo": '#!/bin/sh\n"$@"\n'}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def test_what_cannot_be_had_keeps_nothing_else_away_and_fails(debian: Path) -> None:
    done = tools(debian, "curl", "node")
    assert done.returncode == 1
    assert [" ".join(line.split()) for line in done.stdout.splitlines()[-2:]] == ["curl curl not on PATH", "node here"]
    asked = (debian / "asked").read_text().splitlines()
    assert [line.split()[0] for line in asked] == ["update", "install", "install"]


def test_what_is_here_is_left_alone(debian: Path) -> None:
    (debian / "node").symlink_to(debian / "sh")
    done = tools(debian, "node")
    assert (done.returncode, done.stdout.split(), (debian / "asked").exists()) == (0, ["node", "here"], False)


def test_a_program_that_brings_a_part_may_be_missing_itself(debian: Path) -> None:
    done = tools(debian, "openapi-ts")
    assert done.returncode == 1
    assert "error: npm is not on PATH" in done.stderr


def test_elsewhere_what_to_type_is_said(tmp_path: Path) -> None:
    done = tools(tmp_path, "prometheus")
    assert done.returncode == 0
    assert "prometheus and promtool not on PATH: Prometheus from https://" in done.stdout


def test_a_part_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    done = tools(tmp_path, "dragon")
    assert done.returncode == 2
    assert "there is no part dragon: choose from prometheus, " in done.stderr
