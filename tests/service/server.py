"""A real `bentoml serve` of a copy of the project, on a free port, with a BentoML home of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.tiny import tiny_model_folder
from training.model.pin import PIN_FILE, PROMOTION_FILE, Champion, write

ROOT = Path(__file__).parent.parent.parent
READY_S = 30.0
IMPORT_MODEL = """
import shutil, sys, bentoml
with bentoml.models.create(sys.argv[1]) as model:
    shutil.copytree(sys.argv[2], model.path, dirs_exist_ok=True)
"""


def copy_project(target: Path) -> Path:
    """What the service needs of the project, as bentofile.yaml lists it."""
    shutil.copytree(ROOT / "training", target / "training", ignore=shutil.ignore_patterns("__pycache__"))
    (target / "k8s").mkdir(exist_ok=True)
    for name in ("service.py", "bentofile.yaml", "params.yaml", "k8s/Dockerfile.j2"):
        shutil.copy(ROOT / name, target / name)
    return target


def environment(home: Path, **extra: str) -> dict[str, str]:
    """The environment of a BentoML process that shares nothing with the user's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BENTOML", "SERVE_", "MLFLOW"))}
    return kept | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "true"} | extra


def promotion_of(pin: Champion, **verdict: Any) -> dict[str, Any]:
    """What models/promotion.json says of a pinned model that passed the gate; `verdict` overrides keys of that."""
    check = {"name": "accuracy", "passed": True, "figure": "0.9", "limit": "at least 0.6"}
    passed = {
        "gate": "pass",
        "candidate": {"version": pin.mlflow_version, "model_sha256": pin.model_sha256},
        "champion": None,
        "test_hash": "c" * 64,
        "checks": [check],
        "forced": None,
        "created": "2026-01-02T00:00:00+00:00",
    }
    names = {"version": pin.mlflow_version, "model_sha256": pin.model_sha256, "promoted": "2026-01-02"}
    return {"champion": names, "verdict": passed | verdict, "former": []}


def make_champion(project: Path, home: Path, version: str = "3", **how: Any) -> Champion:
    """A tiny model in the BentoML store under `home`, the pin that names it, and the gate's verdict on it.

    `how` it is made: see tiny.py.
    """
    folder = tiny_model_folder(project / "models/model", **how)
    pin = Champion("cats-vs-dogs", f"cats-vs-dogs:{folder.sha256[:16]}", version, "a" * 32, folder.sha256)
    command = [sys.executable, "-c", IMPORT_MODEL, pin.bento_tag, str(folder.path)]
    subprocess.run(command, check=True, env=environment(home))
    write(pin, project / PIN_FILE)
    (project / PROMOTION_FILE).write_text(json.dumps(promotion_of(pin)))
    return pin


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def two_free_ports() -> tuple[int, int]:
    """Two neighbours."""
    while True:
        first = free_port()
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", first + 1))
            except OSError:
                continue
            return first, first + 1


def becomes_ready(url: str, seconds: float, alive: Callable[[], bool] = lambda: True) -> bool:
    """Wait for 200 from /readyz, as long as the service lives."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and alive():
        try:
            if httpx.get(f"{url}/readyz", timeout=2).status_code == 200:
                return True
        except httpx.TransportError:
            time.sleep(0.05)
    return False


def batch_sizes(client: httpx.Client) -> dict[str, float]:
    """Sum and count of BentoML's own histogram of batch sizes for /predict."""
    lines = client.get("/metrics").text.splitlines()
    found = [line for line in lines if line.startswith("bentoml_service_adaptive_batch_size") and '"predict"' in line]
    values = [(line.split("{")[0].rpartition("_")[2], float(line.split()[-1])) for line in found]  # of each worker
    return {name: sum(value for each, value in values if each == name) for name in ("sum", "count")}


def children(pid: int) -> set[int]:
    """Processes that a process has started: the workers of a server."""
    return {child.pid for child in psutil.Process(pid).children()}


@dataclass
class Server:
    """A running server; `log` is the file of what it printed."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    project: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @classmethod
    def launch(cls, project: Path, home: Path, port: int | None = None, /, **extra: str) -> Server:
        """Start, without waiting; on a free port unless one is given."""
        port, log = port or free_port(), project / f"server-{time.monotonic_ns()}.log"
        command = [str(Path(sys.executable).parent / "bentoml"), "serve", "--host", "127.0.0.1", "--port", str(port)]
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, cwd=project, env=environment(home, **extra), stdout=file, stderr=file, start_new_session=True
            )
        return cls(process, port, log, project)

    @classmethod
    def start(cls, project: Path, home: Path, port: int | None = None, /, **extra: str) -> Server:
        """Start and wait until it is ready."""
        server = cls.launch(project, home, port, **extra)
        server.wait_ready()
        return server

    def wait_ready(self, seconds: float = READY_S) -> None:
        if not becomes_ready(self.url, seconds, lambda: self.process.poll() is None):
            raise AssertionError(f"not ready: {self.log.read_text()}")

    def stop(self, seconds: float = 20.0) -> int:
        """SIGTERM to the supervisor, as Docker and Kubernetes do it; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise


def raw_post(length: int, media: str = "image/png") -> bytes:
    """The head of a POST /predict with a valid key, written by hand."""
    head = (
        "POST /predict HTTP/1.1",
        "Host: x",
        "X-API-Key: first",
        f"Content-Type: {media}",
        f"Content-Length: {length}",
    )
    return "\r\n".join((*head, "", "")).encode()


def talk(server: Server, *pieces: bytes, pause: float = 0.0, half_close: bool = False) -> tuple[int, bytes]:
    """Send the pieces with a pause between them; status and body of what comes back, our side staying open."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(pieces[0])
        for piece in pieces[1:]:
            time.sleep(pause)
            connection.sendall(piece)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        response = HTTPResponse(connection)
        response.begin()
        return response.status, response.read()


def reads_nothing(server: Server) -> socket.socket:
    """A connection on which far more is asked for than is taken."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", server.port))
    connection.sendall(b"GET /static_content/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
    return connection
