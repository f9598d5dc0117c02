"""`make load`: locust against a live server; errors and the 95th percentile decide the exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.server import ROOT, Server

ASKED = ("/predict", "/predict_batch", "/explain", "/feedback", "/health", "broken")


def locust(server: Server, host: str, seconds: int, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run it with the model folder that is served."""
    command = [str(Path(sys.executable).parent / "locust"), "-f", str(ROOT / "tests/load/locustfile.py"), "--headless"]
    command += ["--users", "4", "--spawn-rate", "4", "--run-time", f"{seconds}s", "--host", host]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LOAD_", "LOCUST_"))}
    return subprocess.run(
        command, cwd=server.project, env=kept | extra, capture_output=True, text=True, timeout=60, check=False
    )


def test_mixed_traffic_without_errors_passes(server: Server) -> None:
    done = locust(server, server.url, 3, LOAD_P95_MS="20000")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split()[:2] for line in done.stderr.splitlines() + done.stdout.splitlines()]
    assert {name for _, name in (row for row in rows if len(row) == 2)} >= set(ASKED)


def test_a_slow_percentile_fails(server: Server) -> None:
    done = locust(server, server.url, 3, LOAD_P95_MS="0.001")
    assert done.returncode == 1
    assert "failed: 0 of " in done.stdout


def test_errors_fail(server: Server) -> None:
    done = locust(server, f"{server.url}/nowhere", 3, LOAD_P95_MS="20000")
    assert done.returncode == 1
    assert "failed: " in done.stdout


@pytest.mark.parametrize(
    ("words", "host"),
    [
        ([], "http://127.0.0.1:3000"),
        (["PORT=8080"], "http://127.0.0.1:8080"),
        (["URL=http://models.example:80"], "http://models.example:80"),
    ],
)
def test_make_load_asks_the_address_it_is_given(words: list[str], host: str) -> None:
    kept = {name: value for name, value in os.environ.items() if name not in ("PORT", "URL", "MAKEFLAGS", "MAKELEVEL")}
    done = subprocess.run(
        ["make", "--dry-run", "load", *words], cwd=ROOT, env=kept, capture_output=True, text=True, check=True
    )
    assert done.stdout.rstrip().endswith(f" --host {host}")
