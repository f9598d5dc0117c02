"""The whole chain, live: fault in the service -> Prometheus -> rule -> Alertmanager -> receiver, and back to silence.

Everything is real and configured by the project's files; only the windows of the rules are seconds (stack.quick_rules).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
import orjson
import pytest

from tests.ops import stack
from tests.ops.stack import DURATION, MONITORING, Program, wait
from tests.receiver import Post, Receiver
from tests.service.server import Server, copy_project, make_champion
from tests.tiny import tiny_picture

pytestmark = pytest.mark.needs("prometheus", "alertmanager")

FAULT = """

import time
from pathlib import Path

_sound = Engine._forward


def _faulty(self, *arguments):  # a test put this here
    fault = Path("fault").read_text()
    if fault == "fail":
        raise RuntimeError("fault")
    if fault == "slow":
        time.sleep(0.12)
    return _sound(self, *arguments)


Engine._forward = _faulty
"""


@dataclass
class Chain:
    """The service with its faults, and what came to the receiver."""

    server: Server
    prometheus: Program
    receiver: Receiver

    def fault(self, kind: str) -> None:
        (self.server.project / "fault").write_text(kind)

    def drift(self, alarm: bool) -> None:
        """What monitoring.drift leaves behind."""
        found = {
            "time": datetime.now(UTC).isoformat(),
            "version": "3",
            "enough_pictures": True,
            "alarm": alarm,
            "alarm_since": datetime.now(UTC).isoformat() if alarm else None,
            "tests": [{"property": "brightness", "statistic": 0.8, "p_value": 0.0, "threshold": 0.001, "alarm": alarm}],
        }
        path = self.server.project / "logs/drift.json"
        path.with_suffix(".part").write_bytes(orjson.dumps(found))
        path.with_suffix(".part").rename(path)

    def told(self, receiver: str, state: str, alert: str) -> str:
        """The text of the message, once it has come."""
        found: Post = wait(lambda: self._find(f"/{receiver}", f"{state} {alert}"))
        text: str = found.body["attachments"][0]["text"]
        assert "Runbook: " in text
        return text

    def _find(self, path: str, title: str) -> Post | None:
        return next(
            (p for p in self.receiver.posts if p.path == path and p.body["attachments"][0]["title"] == title), None
        )


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    folder = tmp_path_factory.mktemp("chain")
    project = copy_project(folder / "project")
    with (project / "training/serving/engine.py").open("a") as engine:
        engine.write(FAULT)
    (project / "fault").write_text("none")
    make_champion(project, project / "home")
    with ExitStack() as running:
        receiver = Receiver()
        running.callback(receiver.stop)
        relay = stack.relay(folder / "relay", receiver)
        running.callback(relay.stop)
        alertmanager = stack.alertmanager(folder / "alertmanager", receiver, relay.port)
        running.callback(alertmanager.stop)
        server = Server.start(project, project / "home", SERVE_DRAIN="0")
        running.callback(server.stop)
        prometheus = stack.prometheus(folder / "prometheus", server.port, alertmanager.port, stack.quick_rules())
        running.callback(prometheus.stop)
        over = threading.Event()
        traffic = threading.Thread(target=_send_pictures, args=(server, over))
        traffic.start()
        running.callback(traffic.join)
        running.callback(over.set)
        yield Chain(server, prometheus, receiver)


def _send_pictures(server: Server, over: threading.Event) -> None:
    picture = tiny_picture(0, 7)
    with httpx.Client(base_url=server.url, timeout=20) as client:
        while not over.wait(0.1):
            with suppress(httpx.TransportError):  # the last test stops the server
                client.post("/predict", content=picture, headers={"Content-Type": "image/png"})


def test_rules_differ_in_their_durations_only() -> None:
    original = (MONITORING / "alerts.yml").read_text()
    quick = stack.quick_rules()
    assert quick != original
    assert re.sub(r"(?<=\[)\d+s(?=\])|(?<=for: )\d+s", "", quick) == DURATION.sub("", original)


def test_all_is_quiet_without_a_fault(chain: Chain) -> None:
    wait(lambda: chain.prometheus.get("query", query='classifier:slo_burn_rate:6h{slo="latency"}')["result"])
    assert chain.prometheus.get("alerts")["alerts"] == []


def test_failing_requests(chain: Chain) -> None:
    chain.fault("fail")
    text = chain.told("page", "FIRING", "AvailabilityBudgetBurnsFast")
    assert "Too many requests fail" in text
    assert "monitoring/RUNBOOK.md#availabilitybudgetburnsfast" in text
    assert "/predict failed with an internal error" in chain.told("ticket", "FIRING", "InternalErrors")
    chain.fault("none")
    chain.told("page", "RESOLVED", "AvailabilityBudgetBurnsFast")
    chain.told("ticket", "RESOLVED", "InternalErrors")


def test_a_slow_model(chain: Chain) -> None:
    chain.fault("slow")
    text = chain.told("page", "FIRING", "LatencyBudgetBurnsFast")
    assert "monitoring/RUNBOOK.md#latencybudgetburnsfast" in text
    chain.fault("none")
    chain.told("page", "RESOLVED", "LatencyBudgetBurnsFast")


def test_drift_tells_people_and_starts_the_retrain_workflow(chain: Chain) -> None:
    chain.drift(True)
    text = chain.told("ticket", "FIRING", "DriftDetected")
    assert "monitoring/RUNBOOK.md#driftdetected" in text
    dispatch = wait(lambda: [post for post in chain.receiver.posts if post.path == "/repos/owner/name/dispatches"])[0]
    assert dispatch.headers["Authorization"] == "Bearer token of GitHub"
    assert dispatch.body["event_type"] == "drift"
    assert dispatch.body["client_payload"]["version"] == "3"
    chain.drift(False)
    chain.told("ticket", "RESOLVED", "DriftDetected")


def test_a_service_that_is_gone(chain: Chain) -> None:
    chain.server.stop()
    text = chain.told("page", "FIRING", "NoChampionReady")
    assert "monitoring/RUNBOOK.md#nochampionready" in text
