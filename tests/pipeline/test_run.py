"""`make run`, less the installation: the pipeline, the service, a first prediction, and a clean end."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.pipeline.acting import promoted
from tests.service.server import ROOT, free_port
from training.run import RunError, wait_until_ready


@pytest.fixture
def served_project(project: Path) -> Path:
    """A project with a champion, the service's files, and a pipeline of one stage that has nothing to do."""
    promoted(project, skill=1.0)
    for name in ("service.py", "bentofile.yaml", "training"):
        (project / name).symlink_to(ROOT / name)
    (project / "dvc.yaml").write_text("stages:\n  nothing:\n    cmd: echo the pipeline ran\n    always_changed: true\n")
    subprocess.run([Path(sys.executable).parent / "dvc", "init", "-q"], cwd=project, check=True)
    return project


def start(folder: Path, port: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "training.run", "--port", str(port)]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """What the process printed up to the line that holds `words`; it is killed after a minute without it."""
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if words in line:
            break
    watchdog.cancel()
    return "".join(lines)


def test_it_serves_answers_and_stops_on_ctrl_c(served_project: Path) -> None:
    port = free_port()
    process = start(served_project, port)
    shown = read_until(process, "Ctrl-C")
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert "the pipeline ran" in shown
    assert f"The champion is served on http://127.0.0.1:{port}" in shown
    for word in ('"label"', '"data_hash"', '"git_commit"', "/ui/model", "make ui"):
        assert word in shown
    assert "stopping" in rest
    assert process.returncode == 0, rest


def test_a_pipeline_that_fails_serves_nothing(served_project: Path) -> None:
    (served_project / "dvc.yaml").write_text("stages:\n  broken:\n    cmd: exit 3\n    always_changed: true\n")
    process = start(served_project, free_port())
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "error: the pipeline stopped" in output
    assert "Starting production" not in output


def test_a_service_that_ends_is_not_waited_for() -> None:
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"])
    with pytest.raises(RunError, match="the service did not start"):
        wait_until_ready(f"http://127.0.0.1:{free_port()}", child)
