"""The direct way: whatever an API does, the client has one answer, and BentoML's metrics know of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import orjson
import pytest
from bentoml.exceptions import ServiceUnavailable
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from training.serving.bento.batching import Dispatcher
from training.serving.bento.direct import Direct
from training.serving.bento.traffic import TrafficMetrics

TIMEOUT_S = 0.1
LABELS = ("service_name", "service_version", "runner_name")
Api = Callable[[str, Request], Awaitable[Response]]


class Others:
    """Stands for BentoML's own application; `counted` puts BentoML's metrics in front, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.asked: list[tuple[str, str]] = []
        self.answer: ASGIApp = self.note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.answer(scope, receive, send)

    async def note(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        self.asked.append((scope["method"], scope["path"]))

    async def fail(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As Starlette does: answer, and raise again."""
        await Response("failed", 500)(scope, receive, send)
        raise RuntimeError("a page failed")

    def counted(self, app: ASGIApp) -> TrafficMetrics:
        made = TrafficMetrics(app, ["/predict"])
        answers = (*LABELS, "endpoint", "http_response_code")
        made.metrics_request_total = Counter("total", "", answers, registry=self.registry)
        made.metrics_request_duration = Histogram("duration", "", answers, registry=self.registry)
        made.metrics_request_in_progress = Gauge("in_progress", "", (*LABELS, "endpoint"), registry=self.registry)
        made.metrics_last_request_timestamp = Gauge("last", "", LABELS, registry=self.registry)
        made._is_setup = True
        return made

    def sample(self, name: str) -> dict[str, float]:
        """Values by status."""
        found = [each for family in self.registry.collect() for each in family.samples if each.name == name]
        return {each.labels.get("http_response_code", ""): each.value for each in found}


def ask(api: Api, others: Others, method: str = "POST", path: str = "/predict") -> list[Message]:
    """What is sent for one request."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    factory = SimpleNamespace(service=SimpleNamespace(name="test"), timeout=TIMEOUT_S, api_endpoint=api)
    asked = {"method": method, "scheme": "http", "path": path, "headers": [], "query_string": b"", "server": ("x", 1)}
    scope: Scope = {"type": "http", "state": {"request_id": "r"}} | asked
    direct = Direct(others, cast(Any, factory), {"/predict": "predict"})
    asyncio.run(others.counted(direct)(scope, receive, send))
    return sent


def status_and_code(sent: list[Message]) -> tuple[int, str]:
    start, body = sent
    return start["status"], orjson.loads(body["body"])["error"]["code"]


def test_an_answer_is_counted_and_says_who_gave_it() -> None:
    async def api(name: str, _: Request) -> Response:
        return Response(name)

    others = Others()
    start, body = ask(api, others)
    assert (start["status"], body["body"]) == (200, b"predict")
    assert (b"server", b"BentoML Service/test") in start["headers"]
    assert others.sample("total_total") == {"200": 1}
    assert others.sample("duration_count") == {"200": 1}
    assert others.sample("in_progress") == {"": 0}
    assert others.sample("last")[""] > 0


@pytest.mark.parametrize(("method", "path"), [("GET", "/predict"), ("HEAD", "/predict"), ("POST", "/explain")])
def test_everything_else_goes_bentoml_s_way(method: str, path: str) -> None:
    async def api(*_: object) -> Response:
        raise AssertionError("not this way")

    others = Others()
    assert not ask(api, others, method, path)
    assert others.asked == [(method, path)]


def test_the_error_of_a_page_breaks_no_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def api(*_: object) -> Response:
        raise AssertionError("not this way")

    others = Others()
    others.answer = others.fail
    start, _ = ask(api, others, path="/feedback")
    assert start["status"] == 500
    assert "a page failed" in caplog.text
    assert others.sample("total_total") == {"500": 1}


def test_a_page_that_fails_without_an_answer_fails_on() -> None:
    async def api(*_: object) -> Response:
        raise AssertionError("not this way")

    async def nothing(*_: object) -> None:
        raise RuntimeError("no answer")

    others = Others()
    others.answer = nothing
    with pytest.raises(RuntimeError, match="no answer"):
        ask(api, others, path="/feedback")


def test_an_unexpected_error_is_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def api(*_: object) -> Response:
        raise TimeoutError("not ours")

    others = Others()
    assert status_and_code(ask(api, others)) == (500, "internal")
    assert "not ours" in caplog.text
    assert (others.sample("total_total"), others.sample("in_progress")) == ({"500": 1}, {"": 0})


def test_what_takes_too_long_is_a_timeout_also_in_the_queue_of_batches() -> None:
    def fallback() -> NoReturn:
        raise ServiceUnavailable("process is overloaded")

    async def never(batch: Any) -> Any:
        await asyncio.sleep(60)

    async def api(*_: object) -> Response:
        try:
            await Dispatcher(1, 4, fallback)(never)([1])
        except ServiceUnavailable:  # what BentoML makes of the cancellation
            return Response("overloaded", 503)
        raise AssertionError

    others = Others()
    assert status_and_code(ask(api, others)) == (504, "timeout")
    assert others.sample("total_total") == {"504": 1}
