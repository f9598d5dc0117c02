"""Kill -9 a command at several moments, as a power cut or the out-of-memory killer would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent


def command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module of this project."""
    return [sys.executable, "-m", module, *arguments]


def environment() -> dict[str, str]:
    """An environment in which modules of this project are found from any folder."""
    return os.environ | {"PYTHONPATH": str(ROOT)}


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
