"""Whoever connects while no worker lives has an answer, whatever he sends; then the worker takes the place."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from training.serving.bento import stand_in

ROOT = Path(__file__).parents[3]


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_client_is_told_to_come_again(listening: socket.socket, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr(stand_in, "CLIENT_S", 0.3)
    serving = threading.Thread(target=stand_in.serve, args=(listening, 0.6))
    serving.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/predict"
    with socket.create_connection(listening.getsockname()):  # it says nothing, and keeps nobody waiting
        answer = httpx.request(method, url, content=bytes(1_000_000) if method == "POST" else None)
    serving.join()
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert answer.json()["error"]["code"] == "not_ready"
    assert len(answer.json()["request_id"]) == 32


def test_it_becomes_the_worker(listening: socket.socket) -> None:
    file = listening.fileno()
    code = f"import os, socket; print(os.getpid(), socket.socket(fileno={file}).getsockname()[1])"
    command = [sys.executable, "-m", stand_in.__name__, str(file), "0.1", "-c", code]
    with subprocess.Popen(command, cwd=ROOT, pass_fds=[file], stdout=subprocess.PIPE, text=True) as process:
        said, _ = process.communicate()
    assert said.split() == [str(process.pid), str(listening.getsockname()[1])]
    assert os.WEXITSTATUS(process.returncode) == 0
