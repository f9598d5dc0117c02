"""Signed events of MLflow's webhook, by MLflow's own signing function; the registry is a server of three answers."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from monitoring import promoted
from monitoring.promoted import Champions, PromotedError, from_environment
from monitoring.relay import Relay
from monitoring.workflow import Repository
from tests.receiver import Receiver

SECRET = "of the webhook"
SHA = "ab" * 32
DATA = {"name": "cats", "alias": "champion", "version": "3"}


class Registry(HTTPServer):
    """Says who is champion."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.champion, self.gate = "3", "pass"
        self.tags: list[dict[str, str]] = []


class Answers(BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        tags = [{"key": "model_sha256", "value": SHA}, {"key": "gate", "value": self.server.gate}]
        found: dict[str, Any] = {"registered_model": {"tags": self.server.tags}}
        if "/alias" in self.path:
            found = {"model_version": {"version": self.server.champion, "tags": tags}}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[Registry]:
    running = Registry()
    thread = Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def environment(tmp_path: Path, registry: Registry) -> dict[str, str]:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    program = "import os; open('released', 'a').write(os.environ['CHAMPION_VERSION'])"
    (tmp_path / "release.py").write_text(program)
    return {
        "WEBHOOK_SECRET_FILE": str(tmp_path / "secret"),
        "MODEL_NAME": "cats",
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{registry.server_port}",
        "EVENTS_FILE": str(tmp_path / "logs/champions.jsonl"),
        "RELEASE_COMMAND": f"{sys.executable} {tmp_path / 'release.py'}",
    }


@pytest.fixture
def champions(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Champions:
    monkeypatch.chdir(tmp_path)
    return from_environment(environment)


def event(
    identity: str = "one", age_s: float = 0, data: Any = DATA, secret: str = SECRET, kind: str = "created"
) -> dict[str, Any]:
    """What httpx posts: MLflow's body with the headers that it makes."""
    body = json.dumps({"entity": "model_version_alias", "action": kind, "timestamp": "", "data": data})
    stamp = str(int(time.time() - age_s))
    headers = {"X-MLflow-Delivery-Id": identity, "X-MLflow-Timestamp": stamp}
    return {"content": body, "headers": headers | {"X-MLflow-Signature": signature(secret, identity, stamp, body)}}


def signature(secret: str, identity: str, stamp: str, body: str) -> str:
    """As MLflow's webhooks/delivery.py does; tests/pipeline has MLflow itself do it."""

    made = hmac.new(secret.encode(), f"{identity}.{stamp}.{body}".encode(), hashlib.sha256).digest()
    return f"v1,{base64.b64encode(made).decode()}"


def post(champions: Champions, *events: dict[str, Any]) -> list[int]:
    """The statuses that MLflow gets; everything that they set off has ended."""

    async def talk() -> list[int]:
        transport = httpx.ASGITransport(Starlette(routes=champions.routes()))
        async with httpx.AsyncClient(transport=transport, base_url="http://relay") as client:
            answers = await asyncio.gather(*(client.post("/champion", **one) for one in events))
            while champions.tasks:
                await asyncio.gather(*champions.tasks)
            return [answer.status_code for answer in answers]

    return asyncio.run(talk())


def outcomes(champions: Champions) -> list[str]:
    return [json.loads(line)["outcome"] for line in champions.events.read_text().splitlines()]


def released() -> str:
    return Path("released").read_text() if Path("released").is_file() else ""


def test_a_new_champion_is_released(champions: Champions) -> None:
    assert post(champions, event()) == [202]
    assert released() == "3"
    assert outcomes(champions) == ["taken", "release begins", "released"]


@pytest.mark.parametrize(
    ("wrong", "status", "outcome"),
    [
        ({"secret": "guessed"}, 401, "wrong signature"),
        ({"age_s": 301}, 400, "too old"),
        ({"age_s": -301}, 400, "too old"),
        ({"data": DATA | {"alias": "previous"}}, 204, "not about our champion"),
        ({"data": DATA | {"name": "dogs"}}, 204, "not about our champion"),
        ({"kind": "deleted"}, 204, "not about our champion"),
        ({"data": []}, 400, "not an event"),
        ({"data": DATA | {"version": "2"}}, 202, "nothing done: the registry's champion is 3 now"),
    ],
)
def test_other_events_release_nothing(champions: Champions, wrong: dict[str, Any], status: int, outcome: str) -> None:
    assert post(champions, event(**wrong)) == [status]
    assert released() == ""
    assert outcomes(champions)[-1].startswith(outcome)


def test_floods_and_replays_release_once(champions: Champions, environment: dict[str, str]) -> None:
    """Twenty of each, together; and after a restart."""
    forged = [event(f"forged {number}", secret="guessed") for number in range(20)]
    changed = [event(f"changed {number}") | {"content": b"{}"} for number in range(20)]
    statuses = post(champions, *forged, *changed, *[event()] * 20)
    assert sorted(statuses) == [202] + [204] * 19 + [401] * 40
    assert post(from_environment(environment), event()) == [204]
    assert released() == "3"


def test_a_body_without_end_is_cut_off(champions: Champions) -> None:
    assert post(champions, event() | {"content": b" " * (promoted.LARGEST + 1)}) == [413]
    assert released() == ""


@pytest.mark.parametrize("gate", ["fail", "", "passed by me"])
def test_a_champion_that_the_gate_did_not_let_through_is_not_released(
    champions: Champions, registry: Registry, gate: str
) -> None:
    registry.gate = gate
    assert post(champions, event()) == [202]
    assert released() == ""
    assert "moved by hand, not judged: `python -m training.promote --version 3`" in outcomes(champions)[-1]


def test_a_move_is_waited_for(champions: Champions, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promoted, "SETTLED_S", 0.0)
    registry.tags = [{"key": "unfinished_move", "value": "{}"}]
    post(champions, event())
    assert released() == ""
    assert "was cut off" in outcomes(champions)[-1]


def test_a_release_that_fails_is_told(champions: Champions, tmp_path: Path) -> None:
    (tmp_path / "release.py").write_text("raise SystemExit(3)")
    post(champions, event())
    assert outcomes(champions)[-1].endswith("release.py ended with 3")


def test_a_registry_that_is_gone_is_told(champions: Champions) -> None:
    champions.uri = "http://127.0.0.1:9"
    post(champions, event())
    assert outcomes(champions)[-1].startswith("failed: http://127.0.0.1:9 cannot be asked")


def test_the_workflow_is_started_in_place_of_a_command(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    github = Receiver(204)
    del environment["RELEASE_COMMAND"]
    (tmp_path / "github").write_text("theirs\n")
    environment |= {
        "GITHUB_REPOSITORY": "o/n",
        "GITHUB_API_URL": github.url,
        "GITHUB_TOKEN_FILE": str(tmp_path / "github"),
    }
    champions = from_environment(environment)
    post(champions, event())
    [dispatch] = github.posts
    assert dispatch.body == {"event_type": "champion", "client_payload": {"version": "3", "model_sha256": SHA}}
    monkeypatch.setattr(promoted, "PAUSES_S", (0.0, 0.0))
    github.status = 500
    post(champions, event("two"))
    assert len(github.posts) == 4
    assert outcomes(champions)[-1].startswith("failed: Server error '500")
    github.stop()


def test_the_file_of_events_is_bounded(champions: Champions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promoted, "EVENTS_SIZE", 2000)
    post(champions, *[event(secret="guessed")] * 100)
    sizes = [path.stat().st_size for path in champions.events.parent.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) < 2200


def test_what_is_missing_in_the_environment_is_named() -> None:
    with pytest.raises(PromotedError, match="WEBHOOK_SECRET_FILE, MODEL_NAME, MLFLOW_TRACKING_URI, GITHUB_REPOSITORY"):
        from_environment({})


def test_the_relay_takes_the_webhook_where_its_secret_is_given(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = Relay(Repository("http://github", "theirs"), "own")
    monkeypatch.delenv("WEBHOOK_SECRET_FILE", raising=False)
    assert [route.path for route in relay.app().routes if isinstance(route, Route)] == ["/retrain"]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert [route.path for route in relay.app().routes if isinstance(route, Route)] == ["/retrain", "/champion"]
