"""Real Prometheus and Alertmanager of this machine, with the project's own configuration, on free local ports."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests import parts
from tests.receiver import Receiver
from tests.service.server import ROOT, environment, free_port

MONITORING = ROOT / "monitoring"

DURATION = re.compile(r"(?<=\[)\d+[mhd](?=\])|(?<=for: )\d+[mhd]")
SECONDS = {
    "1m": 3,
    "2m": 4,
    "5m": 4,
    "10m": 4,
    "15m": 4,
    "30m": 5,
    "1h": 6,
    "2h": 6,
    "6h": 7,
    "1d": 8,
    "3d": 9,
    "7d": 9,
}


def quick_rules() -> str:
    """alerts.yml with seconds for minutes to days: only the windows and the waits differ."""
    return DURATION.sub(lambda found: f"{SECONDS[found[0]]}s", (MONITORING / "alerts.yml").read_text())


def wait(what: Callable[[], Any], seconds: float = 60.0, pause: float = 0.2) -> Any:
    """The first true value of `what()`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(pause)
    raise AssertionError(f"nothing came within {seconds:g} s")


@dataclass
class Program:
    """A running program that answers at `url`."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @classmethod
    def start(cls, command: Sequence[str | Path], port: int, ready: str, folder: Path, **extra: str) -> Program:
        log = folder / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=file, cwd=ROOT, env=environment(folder / "home", **extra)
            )
        program = cls(process, port, log)
        try:
            wait(lambda: program.answers(ready))
        except AssertionError:
            program.stop()
            raise
        return program

    def answers(self, path: str) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return not httpx.get(f"{self.url}{path}", timeout=2).is_server_error
        except httpx.TransportError:
            return False

    def get(self, path: str, **params: Any) -> Any:
        """The `data` that the API answers with."""
        return httpx.get(f"{self.url}/api/v1/{path}", params=params, timeout=10).raise_for_status().json()["data"]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


def prometheus(folder: Path, service: int, alertmanager: int, rules: str) -> Program:
    """Prometheus with prometheus.yml, but for its addresses and a second between scrapes; ports of the targets."""
    folder.mkdir()
    port = free_port()
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    ports = {"classifier": service, "alertmanager": alertmanager, "prometheus": port}
    for job in config["scrape_configs"]:
        job.pop("dns_sd_configs", None)
        job["static_configs"] = [{"targets": [f"127.0.0.1:{ports[job['job_name']]}"]}]
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{alertmanager}"]
    (folder / "alerts.yml").write_text(rules)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    return Program.start(command, port, "/-/ready", folder)


def alertmanager(folder: Path, receiver: Receiver, relay: int) -> Program:
    """Alertmanager with alertmanager.yml, but for addresses, the folder of its secrets, and a second of waiting."""
    secrets = folder / "secrets"
    secrets.mkdir(parents=True)
    for name in ("page", "ticket"):
        (secrets / f"{name}_url").write_text(f"{receiver.url}/{name}\n")
    (secrets / "relay_token").write_text("token of the relay\n")
    config = (MONITORING / "alertmanager.yml").read_text()
    config = re.sub(r"(group_wait|group_interval): \w+", r"\1: 1s", config)
    config = config.replace("/etc/alertmanager/secrets", str(secrets)).replace("relay:9095", f"127.0.0.1:{relay}")
    (folder / "alertmanager.yml").write_text(config)
    program = parts.alertmanager()
    assert program
    port = free_port()
    command = [
        program,
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
        "--log.level=warn",
    ]
    return Program.start(command, port, "/-/ready", folder)


def relay(folder: Path, receiver: Receiver) -> Program:
    """The relay, with `receiver` in the place of GitHub."""
    folder.mkdir()
    (folder / "github_token").write_text("token of GitHub\n")
    (folder / "relay_token").write_text("token of the relay\n")
    port = free_port()
    return Program.start(
        [sys.executable, "-m", "monitoring.relay", "--port", str(port)],
        port,
        "/",
        folder,
        GITHUB_REPOSITORY="owner/name",
        GITHUB_API_URL=receiver.url,
        GITHUB_TOKEN_FILE=str(folder / "github_token"),
        RELAY_TOKEN_FILE=str(folder / "relay_token"),
    )
