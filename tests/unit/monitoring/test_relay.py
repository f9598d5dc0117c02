from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from monitoring import dashboards, promoted
from monitoring import relay as relay_module
from monitoring.relay import MAX_BYTES, Relay, RelayError
from monitoring.workflow import TokenError
from tests.receiver import Receiver

ALERT = {
    "status": "firing",
    "labels": {"alertname": "DriftDetected", "version": "3"},
    "annotations": {"summary": "The pictures changed", "runbook_url": "monitoring/RUNBOOK.md#driftdetected"},
    "startsAt": "2026-01-01T00:00:00Z",
}
OVER = ALERT | {"status": "resolved"}
BEARER = {"Authorization": "Bearer own"}


@pytest.fixture
def github() -> Iterator[Receiver]:
    github = Receiver(204)
    yield github
    github.stop()


@pytest.fixture
def environment(tmp_path: Path, github: Receiver) -> dict[str, str]:
    (tmp_path / "github").write_text("theirs\n")
    (tmp_path / "own").write_text("own\n")
    return {
        "GITHUB_REPOSITORY": "owner/name",
        "GITHUB_API_URL": github.url,
        "GITHUB_TOKEN_FILE": str(tmp_path / "github"),
        "RELAY_TOKEN_FILE": str(tmp_path / "own"),
    }


@pytest.fixture
def relay(environment: dict[str, str]) -> Relay:
    return Relay.from_environment(environment)


def post(relay: Relay, alerts: list[Any] | None = None, **request: Any) -> int:
    """The status that Alertmanager gets."""

    async def talk() -> int:
        transport = httpx.ASGITransport(relay.app())
        async with httpx.AsyncClient(transport=transport, base_url="http://relay") as client:
            asked: dict[str, Any] = {"json": {"alerts": alerts}, "headers": BEARER} | request
            return (await client.post("/retrain", **asked)).status_code

    return asyncio.run(talk())


def test_a_firing_alert_starts_the_workflow(relay: Relay, github: Receiver) -> None:
    assert post(relay, [OVER, ALERT]) == 202
    told = {"version": "3", "since": "2026-01-01T00:00:00Z", "reason": "The pictures changed"}
    [dispatch] = github.posts
    assert dispatch.path == "/repos/owner/name/dispatches"
    assert dispatch.body == {"event_type": "drift", "client_payload": told}
    assert dispatch.headers["Authorization"] == "Bearer theirs"


def test_an_alert_that_is_over_starts_nothing(relay: Relay, github: Receiver) -> None:
    assert post(relay, [OVER]) == 204
    assert post(relay, []) == 204
    assert github.posts == []


def of_drift(drift: str, **changes: Any) -> dict[str, Any]:
    return ALERT | {"annotations": {"summary": "The pictures changed", "drift": drift}} | changes


def test_one_drift_starts_one_retraining_however_often_it_is_told(relay: Relay, github: Receiver) -> None:
    assert post(relay, [of_drift("3 since 1")]) == 202
    assert post(relay, [of_drift("3 since 1")]) == 204
    assert post(relay, [of_drift("3 since 1", startsAt="2026-01-03T00:00:00Z")]) == 204  # it fired anew
    assert post(relay, [of_drift("3 since 1"), of_drift("3 since 2")]) == 202
    assert len(github.posts) == 2


def test_a_drift_that_github_did_not_take_is_not_forgotten(relay: Relay, github: Receiver) -> None:
    github.status = 500
    assert post(relay, [of_drift("3 since 1")]) == 502
    github.status = 204
    assert post(relay, [of_drift("3 since 1")]) == 202


def test_a_restart_knows_what_was_started(
    environment: dict[str, str], tmp_path: Path, github: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "REMEMBERED", 3)
    state = tmp_path / "started.json"
    again = environment | {"RELAY_STATE_FILE": str(state)}
    for number in range(5):
        assert post(Relay.from_environment(again), [of_drift(str(number))]) == 202
    assert post(Relay.from_environment(again), [of_drift(str(number))]) == 204
    assert Relay.from_environment(again).started == ["2", "3", "4"]
    state.write_text("{damaged")
    assert post(Relay.from_environment(again), [of_drift(str(number))]) == 202
    assert json.loads(state.read_text()) == [str(number)]


def test_a_state_that_cannot_be_written_stops_no_retraining(environment: dict[str, str], github: Receiver) -> None:
    relay = Relay.from_environment(environment | {"RELAY_STATE_FILE": "/proc/none/state.json"})
    assert [post(relay, [of_drift("1")]) for _ in range(2)] == [202, 204]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer other"}, {"Authorization": "Bearer ö".encode()}])
def test_a_wrong_token_starts_nothing(relay: Relay, github: Receiver, headers: dict[str, str]) -> None:
    assert post(relay, [ALERT], headers=headers) == 401
    assert github.posts == []


def odd(**changes: Any) -> bytes:
    return json.dumps({"alerts": [ALERT | changes]}).encode()


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"no", b"[]", b"{}", b"\xff", b'{"alerts": [{}]}', b'{"alerts": [{"status": "firing"}]}'),
        *(b"[" * 100_000, b'{"alerts":' * 50_000, b'{"alerts": {}}', b'{"alerts": [7]}', b'{"alerts": null}'),
        *(odd(labels=["version"]), odd(labels={"version": 3}), odd(labels={}), odd(annotations="summary")),
        *(odd(startsAt=None), odd(status="odd"), odd(annotations={"summary": "x" * 5000}), odd(annotations={})),
    ],
)
def test_what_is_no_notification_is_refused(relay: Relay, github: Receiver, body: bytes) -> None:
    assert post(relay, json=None, content=body) == 400
    assert github.posts == []


def test_what_is_too_large_is_refused(relay: Relay, github: Receiver) -> None:
    assert post(relay, json=None, content=b" " * (MAX_BYTES + 1)) == 413
    assert github.posts == []


def test_alertmanager_tries_again_when_github_refuses_or_is_gone(relay: Relay, github: Receiver) -> None:
    github.status = 403
    assert post(relay, [ALERT]) == 502
    github.stop()
    assert post(relay, [ALERT]) == 502


def test_what_is_missing_in_the_environment_is_named(environment: dict[str, str], tmp_path: Path) -> None:
    del environment["GITHUB_REPOSITORY"]
    with pytest.raises(RelayError, match="GITHUB_REPOSITORY must be set"):
        Relay.from_environment(environment)
    environment["GITHUB_REPOSITORY"] = "owner/name"
    (tmp_path / "own").write_text("\n")
    with pytest.raises(TokenError, match="own holds no token"):
        Relay.from_environment(environment)


@pytest.mark.parametrize("module", [relay_module, promoted, dashboards])
def test_the_help_says_how_it_is_called(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["somewhere.py", "--help"])
    with pytest.raises(SystemExit):
        module.main()
    assert capsys.readouterr().out.startswith(f"usage: python -m {module.__name__} ")
