"""Full disks under a live server: it answers on, counts on, starts no worker anew, and recovers by itself. And workers
that cannot start: clients have an answer until they can."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.service.server import Server, becomes_ready, children, copy_project, make_champion

pytestmark = pytest.mark.needs("mount")
WORKERS = 2


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with small disks for metrics and for logs."""
    folder = tmp_path_factory.mktemp("disks")
    mounted = [folder / "home", folder / "logs"]
    for path in mounted:
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(path)], check=True)
    yield folder
    for path in mounted:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture(scope="module")
def small(disks: Path) -> Iterator[Server]:
    project = copy_project(disks / "project")
    make_champion(project, disks / "home")
    running = Server.start(
        project, disks / "home", SERVE_DRAIN="0", SERVE_WORKERS=str(WORKERS), SERVE_LOG_DIR=str(disks / "logs")
    )
    yield running
    assert running.stop() == 0


def fill(folder: Path) -> Path:
    """To the last block."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    return path


def figures(server: Server, name: str) -> float:
    lines = httpx.get(f"{server.url}/metrics", timeout=20).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))


def predict(server: Server, picture: bytes) -> int:
    headers = {"Content-Type": "image/png"}
    return httpx.post(f"{server.url}/predict", content=picture, headers=headers, timeout=20).status_code


def test_full_disks_cost_lines_and_nothing_else(small: Server, disks: Path, cat: bytes) -> None:
    before, workers = figures(small, "classifier_predictions_total"), children(small.process.pid)
    fillers = [fill(disks / name) for name in ("home", "logs")]
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: predict(small, cat), range(80))) == {200}
    wrong = httpx.post(f"{small.url}/predict", content=b"x", timeout=20)  # makes series of a status that is new
    assert 400 <= wrong.status_code < 500
    assert figures(small, "classifier_predictions_total") == before + 80
    assert figures(small, "classifier_request_log_errors_total") > 0
    for filler in fillers:
        filler.unlink()
    lost = figures(small, "classifier_request_log_errors_total")
    answer = httpx.post(f"{small.url}/predict", content=cat, headers={"Content-Type": "image/png"}, timeout=20)
    said = {"request_id": answer.json()["request_id"], "label": "cat"}
    assert httpx.post(f"{small.url}/feedback", json=said, timeout=20).status_code == 200
    assert figures(small, "classifier_request_log_errors_total") == lost
    assert children(small.process.pid) == workers


def test_clients_have_an_answer_while_no_worker_can_start(small: Server, cat: bytes) -> None:
    params = small.project / "params.yaml"
    right = params.read_text()
    params.write_text("nonsense: 1\n")
    for worker in children(small.process.pid):
        os.kill(worker, signal.SIGKILL)
    try:
        answer = httpx.get(f"{small.url}/readyz", timeout=60)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
        assert answer.headers["Retry-After"]
        assert predict(small, cat) == 503
    finally:
        params.write_text(right)
    assert becomes_ready(small.url, 60)
    deadline = time.monotonic() + 60
    while predict(small, cat) != 200 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert predict(small, cat) == 200
    said = small.log.read_text()
    assert said.count("was killed by SIGKILL (out of memory") >= WORKERS
    assert "ended with exit code 1" in said
