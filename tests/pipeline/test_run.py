"""`make run`, less the installation: the pipeline, the service, a first prediction, and a clean end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.pipeline.acting import promoted
from tests.service.server import ROOT, free_port
from tests.unit.common.test_port import answering
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


def start(folder: Path, port: int, **variables: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "training.run", "--port", str(port)]
    environment = os.environ | variables
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


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
    """With what a shell may have set: proxies, none of which is there, and keys of the service."""
    port, nobody = free_port(), f"http://127.0.0.1:{free_port()}"
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "ALL_PROXY"), nobody)
    process = start(served_project, port, API_KEYS="first,second", **proxies)
    shown = read_until(process, "Ctrl-C")
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert "the pipeline ran" in shown
    assert f"The champion is served on http://127.0.0.1:{port}\nin fp32: a test says so\n" in shown
    assert "\nwithout a first look: a test does without\n" in shown
    for word in ('"label"', '"data_hash"', '"git_commit"', "/ui/model", "make ui", "X-API-Key: KEY"):
        assert word in shown
    assert "stopping" in rest
    assert process.returncode == 0, rest


def test_a_taken_port_is_told_before_the_pipeline_runs(served_project: Path) -> None:
    with answering(200, b'{"model": {"bento_tag": "pets:12", "version": "7"}}') as port:
        process = start(served_project, port)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"error: port {port} is taken: " in output
    assert f"(process {os.getpid()}) serves pets:12, version 7. Stop it, or choose another with PORT=" in output
    assert "the pipeline ran" not in output


def test_a_pipeline_that_fails_serves_nothing(served_project: Path) -> None:
    (served_project / "dvc.yaml").write_text("stages:\n  broken:\n    cmd: exit 3\n    always_changed: true\n")
    process = start(served_project, free_port())
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "error: the pipeline failed" in output
    assert "Starting production" not in output


def test_a_service_that_ends_is_not_waited_for() -> None:
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"])
    with pytest.raises(RunError, match="the service did not start"):
        wait_until_ready(free_port(), child)


def test_an_answer_of_another_program_is_not_taken_for_the_service() -> None:
    with answering(200, b"ready") as port:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1); raise SystemExit(1)"])
        with pytest.raises(RunError, match="the service did not start"):
            wait_until_ready(port, child)
