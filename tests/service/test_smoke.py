"""The smoke tests themselves: they pass on a sound service, and fail on what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from monitoring import request_log
from tests.service.server import ROOT, Server, free_port
from tests.tiny import tiny_picture

CHECKS = ["live", "ready", "health", "known pictures", "lineage", "bad input", "metrics", "docs"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for label, name in enumerate(("cat", "dog")):
        (folder / name).mkdir()
        (folder / name / "1.png").write_bytes(tiny_picture(label, 7, noise=0.0))
    return folder


def smoke(url: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command with none of this machine's companions in sight, but those in `variables`."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    known = {"PROMETHEUS_URL": "none", "GRAFANA_URL": "none", "MLFLOW_TRACKING_URI": "sqlite:///none"}
    given = {key: value.replace("NOWHERE", nowhere) for key, value in variables.items()}
    command = [sys.executable, str(ROOT / "tests/smoke/smoke.py"), "--url", url, *words]
    return subprocess.run(command, env=os.environ | known | given, capture_output=True, text=True, timeout=120)


def test_a_sound_service_passes(server: Server, pictures: Path, tmp_path: Path) -> None:
    report = tmp_path / "smoke.xml"
    nobody = dict.fromkeys(("http_proxy", "HTTP_PROXY", "ALL_PROXY"), "NOWHERE")  # a proxy that is not there
    done = smoke(server.url, "--fail-on-error", "--junit", str(report), SMOKE_PICTURES=str(pictures), **nobody)
    assert done.returncode == 0, done.stdout
    assert f"{len(CHECKS)} of {len(CHECKS)} checks passed" in done.stdout
    suite = ElementTree.parse(report).getroot()
    assert [case.get("name") for case in suite] == CHECKS
    assert (suite.get("failures"), suite.findall(".//failure")) == ("0", [])


def test_the_health_check_of_the_image_asks_no_proxy(server: Server) -> None:
    """Docker hands the proxies of its configuration to every container."""
    lines = (ROOT / "k8s/Dockerfile.j2").read_text().splitlines()
    _, *words = json.loads(next(line for line in lines if line.startswith("  CMD [")).removeprefix("  CMD "))
    proxy = {"http_proxy": f"http://127.0.0.1:{free_port()}"}
    for port, healthy in ((server.port, True), (free_port(), False)):
        done = subprocess.run(
            [sys.executable, *words],
            env=os.environ | proxy | {"BENTOML_PORT": str(port)},
            capture_output=True,
            timeout=20,
        )
        assert (done.returncode == 0) is healthy, done.stderr


def test_its_pictures_are_no_traffic(server: Server, project: Path, pictures: Path) -> None:
    since = datetime.now(UTC)
    assert smoke(server.url, "--fail-on-error", SMOKE_PICTURES=str(pictures)).returncode == 0
    said = httpx.post(f"{server.url}/predict", files={"image": (pictures / "cat/1.png").read_bytes()}, timeout=20)
    mine = [said.json()["request_id"]]
    while not (found := [each["request_id"] for each in request_log.read(project / "logs", since)]):
        time.sleep(0.1)  # the service writes its log every now and then
    assert found == mine
    lines = "".join(path.read_text() for path in (project / "logs").glob("requests-*"))
    assert lines.count('"request_id":"check-smoke-') >= 4


def test_a_wrong_answer_fails(server: Server, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/a_dog.png").write_bytes((pictures / "dog/1.png").read_bytes())
    report = tmp_path / "smoke.xml"
    done = smoke(server.url, "--fail-on-error", "--junit", str(report), SMOKE_PICTURES=str(tmp_path))
    assert done.returncode == 1
    assert "FAIL  known pictures  cat/a_dog.png is called dog" in done.stdout
    [failure] = ElementTree.parse(report).getroot().findall("./testcase[@name='known pictures']/failure")
    assert "a_dog.png" in str(failure.get("message"))


def test_pictures_of_other_classes_say_what_to_do(server: Server, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "tulip").mkdir()
    (tmp_path / "tulip/1.png").write_bytes((pictures / "dog/1.png").read_bytes())
    done = smoke(server.url, SMOKE_PICTURES=str(tmp_path))
    assert done.returncode == 0  # it reports only
    assert "the pictures show ['tulip']: name a folder of CLASS/NAME pictures in SMOKE_PICTURES" in done.stdout


def test_nobody_there_fails_every_check(pictures: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert smoke(url, SMOKE_PICTURES=str(pictures)).returncode == 0
    done = smoke(url, "--fail-on-error", SMOKE_PICTURES=str(pictures))
    assert (done.returncode, done.stdout.count("FAIL")) == (1, len(CHECKS))


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    done = smoke("http://127.0.0.1:1", SMOKE_PICTURES=str(tmp_path))
    assert done.returncode == 1
    assert "holds no CLASS/NAME picture: mend SMOKE_PICTURES" in done.stderr


class Companions(BaseHTTPRequestHandler):
    """Prometheus, Grafana and MLflow in one, as far as they are asked."""

    health = "up"

    def do_GET(self) -> None:
        target = {"labels": {"job": "classifier"}, "scrapeUrl": "http://x", "health": self.health, "lastError": "gone"}
        pages = {
            "/api/v1/targets?state=active": json.dumps({"data": {"activeTargets": [target]}}),
            "/api/health": json.dumps({"database": "ok", "version": "12"}),
            "/health": "OK",
        }
        body = pages[self.path].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def companions() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Companions)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_companions_that_are_given_are_asked(companions: str, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    given = {"PROMETHEUS_URL": companions, "GRAFANA_URL": companions, "MLFLOW_TRACKING_URI": companions}
    sound = smoke(nobody, SMOKE_PICTURES=str(pictures), **given).stdout
    for line in ("ok    Prometheus      1 targets up", "ok    Grafana         Grafana 12", "ok    MLflow          "):
        assert line in sound
    monkeypatch.setattr(Companions, "health", "down")
    broken = smoke(nobody, SMOKE_PICTURES=str(pictures), **(given | {"GRAFANA_URL": "NOWHERE"})).stdout
    assert "FAIL  Prometheus      classifier http://x: gone" in broken
    assert "FAIL  Grafana" in broken
