"""Run commands of this project in a folder, and kill -9 them as the out-of-memory killer would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent


def project(folder: Path, **changes: Any) -> Path:
    """A project folder with the params.yaml of this project, section data changed."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["data"] |= changes
    folder.mkdir(exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    return folder


def command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module of this project."""
    return [sys.executable, "-m", module, *arguments]


def environment() -> dict[str, str]:
    """An environment in which modules of this project are found from any folder."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def run(folder: Path, line: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in `folder`."""
    return subprocess.run(line, cwd=folder, env=environment(), capture_output=True, text=True, timeout=120)


def run_killed_after(folder: Path, line: Sequence[str], seconds: float) -> bool:
    """Run a command in `folder` and kill it with its children; True if it was still at work."""
    process = subprocess.Popen(
        line,
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
