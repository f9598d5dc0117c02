"""The local stack: valid for Docker Compose, locked down, in step with the other files (test_image.py runs it)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ops.local_stack import FILE, FOLDER, REQUIRED, compose
from tests.service.server import ROOT

SERVICES = {"classifier", "drift", "relay", "mlflow", "prometheus", "alertmanager", "grafana"}


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
    check = " ".join(service.get("healthcheck", {}).get("test", ()))
    assert "urllib" not in check
    assert "wget" not in check or "wget -Y off " in check
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
    jobs = prometheus["scrape_configs"]
    asked = [target for job in jobs for one in job.get("static_configs", []) for target in one["targets"]]
    found = [one for job in jobs for one in job.get("dns_sd_configs", [])]
    asked += [f"{name}:{one['port']}" for one in found for name in one["names"]]
    assert "classifier:3000" in asked
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
