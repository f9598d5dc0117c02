"""Alerts, routes, dashboards and runbook: valid, complete, and about metrics that the real service really exports."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from monitoring import dashboards
from tests.ops import stack
from tests.ops.stack import MONITORING, Program, wait
from tests.service.server import Server, copy_project, free_port, make_champion
from tests.tiny import tiny_picture

OURS = re.compile(r"\b(?:classifier|bentoml_service)_\w+")  # names of metrics; recording rules have a colon
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
BOARDS = {
    name: json.loads((MONITORING / f"grafana/dashboards/{name}.json").read_text()) for name in ("service", "model")
}
README = (MONITORING / "README.md").read_text()
RUNBOOK = (MONITORING / "RUNBOOK.md").read_text()


def queries() -> dict[str, str]:
    """Every query of the dashboards, by dashboard, panel and letter."""
    found = {
        f"{name}: {panel['title']}, {target['refId']}": target["expr"]
        for name, board in BOARDS.items()
        for panel in board["panels"]
        for target in panel.get("targets", ())
    }
    return found | {f"{name}: deployments": board["annotations"]["list"][0]["expr"] for name, board in BOARDS.items()}


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=MONITORING)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# What the files say


@pytest.mark.needs("prometheus")
def test_prometheus_takes_its_configuration_and_rules() -> None:
    assert f"{len(RULES)} rules found" in run("promtool", "check", "config", "prometheus.yml")


@pytest.mark.needs("prometheus")
def test_a_prometheus_of_this_machine_takes_what_the_readme_makes(tmp_path: Path) -> None:
    [command] = re.findall(r"^sed -e .*local\.yml$", README, re.MULTILINE)
    (tmp_path / "monitoring").mkdir()
    for name in ("prometheus.yml", "alerts.yml"):
        shutil.copy(MONITORING / name, tmp_path / "monitoring")
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    made = tmp_path / "monitoring/local.yml"
    assert f"{len(RULES)} rules found" in run("promtool", "check", "config", made)
    config = yaml.safe_load(made.read_text())
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    assert targets == {"classifier": ["127.0.0.1:3000"], "prometheus": ["localhost:9090"]}
    assert "alerting" not in config


@pytest.mark.needs("prometheus")
@pytest.mark.parametrize("cases", sorted(path.name for path in MONITORING.glob("*_test.yml")))
def test_alerts_fire_and_stay_silent(cases: str) -> None:
    run("promtool", "test", "rules", cases)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_complete(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert alert["annotations"]["summary"]
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert page.endswith("monitoring/RUNBOOK.md")  # the address of a hosted repository may stand before it
    assert anchor == name.lower()
    assert re.search(rf"^### {name}\n\n\S", RUNBOOK, re.MULTILINE)


def test_the_runbook_has_no_entry_for_an_alert_that_is_not_there() -> None:
    assert re.findall(r"^### (\w+)$", RUNBOOK, re.MULTILINE) == list(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_case_that_fires_and_one_that_is_silent(name: str) -> None:
    cases = [
        case
        for path in MONITORING.glob("*_test.yml")
        for test in yaml.safe_load(path.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["alertname"] == name
    ]
    assert {bool(case["exp_alerts"]) for case in cases} == {True, False}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_case_across_a_restart(name: str) -> None:
    found = [
        test
        for path in MONITORING.glob("*_test.yml")
        for test in yaml.safe_load(path.read_text())["tests"]
        if any("stale" in str(series["values"]) for series in test["input_series"])
        and any(case["alertname"] == name and case["exp_alerts"] for case in test["alert_rule_test"])
    ]
    assert found


@pytest.mark.needs("alertmanager")
@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_reaches_its_receivers(name: str) -> None:
    labels = {"alertname": name} | ALERTS[name]["labels"]
    route = ("config", "routes", "test", "--config.file", "alertmanager.yml")
    told = run("amtool", *route, *(f"{key}={value}" for key, value in labels.items())).strip().split(",")
    expected = ["page" if labels["severity"] == "critical" else "ticket"]
    assert told == (["retrain", *expected] if name == "DriftDetected" else expected)


@pytest.mark.needs("alertmanager")
def test_alertmanager_takes_its_configuration_and_holds_no_secret() -> None:
    run("amtool", "check-config", "alertmanager.yml")
    config = yaml.safe_load((MONITORING / "alertmanager.yml").read_text())
    values = list(_leaves(config["receivers"]))
    assert sum(str(value).startswith("/etc/alertmanager/secrets/") for _, value in values) == 3
    assert {key for key, value in values if "://" in str(value)} == {"url"}  # the relay's, within the network


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_is_what_its_code_makes(name: str) -> None:
    assert (dashboards.FOLDER / f"{name}.json").read_text() == dashboards.render(name)


def test_grafana_finds_source_and_dashboards() -> None:
    folder = MONITORING / "grafana/provisioning"
    [source] = yaml.safe_load((folder / "datasources/prometheus.yml").read_text())["datasources"]
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    for board in BOARDS.values():
        [variable] = board["templating"]["list"]
        assert variable["query"] == source["type"]
        ids = [panel["id"] for panel in board["panels"]]
        assert len(set(ids)) == len(ids)
        assert {panel["datasource"]["uid"] for panel in board["panels"] if "targets" in panel} == {"${datasource}"}


# What the real service exports


@dataclass
class Watched:
    """A service that has seen some of everything, and a Prometheus that has scraped it."""

    prometheus: Program
    exported: set[str]  # names of samples
    since: datetime

    def points(self, query: str) -> list[float]:
        query = query.replace("$__rate_interval", "10s")
        found = self.prometheus.get(
            "query_range", query=query, start=self.since.timestamp(), end=time.time(), step="1s"
        )
        values = (float(value) for series in found["result"] for _, value in series["values"])
        return [value for value in values if not math.isnan(value)]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    project = copy_project(folder / "project")
    make_champion(project, project / "home")
    rules = (MONITORING / "alerts.yml").read_text()
    with ExitStack() as running:
        server = Server.start(project, project / "home", SERVE_DRAIN="0", CAPTURE_SAMPLE_RATE="1")
        running.callback(server.stop)
        since = datetime.now(UTC)
        prometheus = stack.prometheus(folder / "prometheus", server.port, free_port(), rules)
        running.callback(prometheus.stop)
        _some_of_everything(server, prometheus)
        yield Watched(prometheus, _exported(server), since)


def _some_of_everything(server: Server, prometheus: Program) -> None:
    """Send until Prometheus has seen the counters grow several times."""
    with httpx.Client(base_url=server.url, timeout=20) as client:

        def grown() -> bool:
            if _seen_to_grow(prometheus):
                return True
            _send_each_kind(server, client)
            return False

        wait(grown)


def _seen_to_grow(prometheus: Program) -> bool:
    found = prometheus.get("query", query="sum(changes(classifier_feedback_total[1m])) >= 3")
    return bool(found["result"])


def _send_each_kind(server: Server, client: httpx.Client) -> None:
    answer = _send(client, tiny_picture(0, 7)).json()
    client.post("/feedback", json={"request_id": answer["request_id"], "label": "cat"}).raise_for_status()
    assert _send(client, b"no picture").status_code == 415
    drift = {
        "time": datetime.now(UTC).isoformat(),
        "version": "3",
        "enough_pictures": True,
        "alarm": True,
        "tests": [{"property": "brightness", "statistic": 0.1, "p_value": 0.7, "threshold": 0.001, "alarm": False}],
    }
    (server.project / "logs/drift.json").write_bytes(orjson.dumps(drift))


def _send(client: httpx.Client, picture: bytes) -> httpx.Response:
    return client.post("/predict", files={"image": picture})


def _exported(server: Server) -> set[str]:
    page = httpx.get(f"{server.url}/metrics").text
    return {sample.name for family in text_string_to_metric_families(page) for sample in family.samples}


@pytest.mark.needs("prometheus")
def test_every_metric_of_a_rule_a_panel_or_the_runbook_is_exported(watched: Watched) -> None:
    named = set(OURS.findall(" ".join([*(rule["expr"] for rule in RULES), *queries().values()])))
    assert named > {"classifier_model_info", "bentoml_service_request_total"}
    assert named - watched.exported == set()
    table = RUNBOOK.partition("## Metrics\n")[2].partition("\n## ")[0]
    described = set(OURS.findall(table))
    families = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in watched.exported}
    assert described - families - watched.exported == set()
    assert {name for name in families if name.startswith("classifier_")} - described == set()


@pytest.mark.needs("prometheus")
@pytest.mark.parametrize("query", queries())
def test_every_panel_has_data(watched: Watched, query: str) -> None:
    assert wait(lambda: watched.points(queries()[query]), 20)


@pytest.mark.needs("prometheus")
def test_no_rule_fails_and_the_objectives_are_worked_out(watched: Watched) -> None:
    rules = [rule for group in watched.prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(RULES)
    assert {rule["health"] for rule in rules} == {"ok"}
    for slo in ("availability", "latency"):
        burn_rate = f'classifier:slo_burn_rate:1h{{slo="{slo}"}}'
        assert wait(partial(watched.points, burn_rate), 20)


def _leaves(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict | list):
        for name, value in tree.items() if isinstance(tree, dict) else ((key, value) for value in tree):
            yield from _leaves(value, name)
    else:
        yield key, tree
