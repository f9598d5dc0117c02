"""The rate limit, and errors that leave in one shape whoever made them."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from pathlib import Path

import httpx
import pytest
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from training.params import Serve
from training.serving import settings
from training.serving.api import edge
from training.serving.api.edge import Edge, RateLimit
from training.serving.bento import logs
from training.serving.connections.drain import Drain

SETTINGS = settings.load(Path(__file__).parents[3], {})


def client(app: ASGIApp, chosen: Serve = SETTINGS, keys: tuple[bytes, ...] = ()) -> httpx.AsyncClient:
    around = Edge(app, chosen, {"/predict", "/health"}, keys, "7", Drain(0))
    return httpx.AsyncClient(transport=httpx.ASGITransport(around), base_url="http://test")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_client_has_a_burst_and_then_its_rate(clock: list[float]) -> None:
    limit = RateLimit(2.0)
    assert [limit.take("a") for _ in range(20)] == [0.0] * 20
    assert limit.take("a") == pytest.approx(0.5)
    assert limit.take("b") == 0
    clock[0] += 0.5
    assert limit.take("a") == 0
    assert limit.take("a") > 0
    clock[0] += 1000
    assert [limit.take("a") for _ in range(20)] == [0.0] * 20
    assert limit.take("a") > 0


def test_clients_that_come_by_the_million_are_forgotten() -> None:
    limit = RateLimit(1.0)
    for number in range(edge.CLIENTS + 500):
        limit.take(str(number))
    assert len(limit._buckets) == edge.CLIENTS


def test_no_rate_is_no_limit() -> None:
    limit = RateLimit(0.0)
    assert [limit.take("a") for _ in range(1000)] == [0.0] * 1000


async def ok(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("fine")(scope, receive, send)


async def foreign(scope: Scope, receive: Receive, send: Send) -> None:
    await Response("<html>secret</html>", int(scope["query_string"]), {"Allow": "POST"})(scope, receive, send)


async def twice(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("first", 504)(scope, receive, send)
    await PlainTextResponse("second")(scope, receive, send)


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, "not_found"), (405, "method_not_allowed"), (500, "internal"), (503, "not_ready"), (504, "timeout")],
)
def test_a_foreign_error_is_told_in_our_shape(status: int, code: str) -> None:
    answer = run(foreign, f"/predict?{status}")
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert answer.headers["Allow"] == "POST"
    assert "secret" not in answer.text


def test_nothing_is_answered_twice() -> None:
    answer = run(twice, "/predict")
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "timeout"


def test_too_many_requests_say_when_to_come_back() -> None:
    chosen = SETTINGS.model_copy(update={"rate_limit": 0.1})

    async def ask() -> list[httpx.Response]:
        async with client(ok, chosen) as asking:
            return [await asking.post("/predict"), await asking.post("/predict"), await asking.get("/health")]

    first, second, health = asyncio.run(ask())
    assert (first.status_code, second.status_code, health.status_code) == (200, 429, 200)
    assert second.json()["error"]["code"] == "too_many_requests"
    assert 1 <= int(second.headers["Retry-After"]) <= 11


def run(app: ASGIApp, url: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with client(app) as asking:
            return await asking.post(url)

    return asyncio.run(ask())


def test_what_is_logged_within_a_request_carries_its_id(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.setFormatter(logs.JsonFormatter())

    async def logging_app(scope: Scope, receive: Receive, send: Send) -> None:
        logging.getLogger("somewhere").warning("within")
        await ok(scope, receive, send)

    async def ask() -> None:
        async with client(logging_app) as asking:
            await asking.post("/predict", headers={"X-Request-ID": "order-17"})

    asyncio.run(ask())
    line = json.loads(caplog.text)
    assert (line["message"], line["request_id"]) == ("within", "order-17")
