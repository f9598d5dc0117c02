"""The short way to a batchable API.

BentoML leads each request through ten layers of middleware and routing and a task of its own, which take the event loop
several times what the HTTP server itself does. Nothing there is needed for an API whose input and output are known,
except its metrics, its time limit and its header: those are here. Everything else, and all of it once traces, access
logs or further middleware are switched on, goes BentoML's way.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from _bentoml_impl.server.app import log_exception
from anyio import to_thread
from bentoml._internal.context import server_context
from bentoml._internal.server.http.instruments import RunnerTrafficMetricsMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from training.serving.errors import Fault

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

    from training.serving.batching import BatchingApp


FAILURES = (503, 504)  # beside 200 and 500, with which BentoML itself begins


class FromZero(RunnerTrafficMetricsMiddleware):
    """BentoML's metrics of requests, with those that alerts look at there from the start, at 0: Prometheus does not see
    the first failure in a series that begins at 1."""

    def _setup(self) -> None:  # type: ignore[override]  # its arguments are injected
        super()._setup()
        for address in server_context.service_routes:
            for status in FAILURES:
                self.metrics_request_total.labels(**_of_service(), endpoint=address, http_response_code=status)
        self.metrics_request_duration.labels(**_of_service(), endpoint="/predict", http_response_code=200)


class Traffic:
    """BentoML's metrics of the requests to one address, looked up once."""

    def __init__(self, metrics: RunnerTrafficMetricsMiddleware, address: str) -> None:
        self._metrics = metrics
        self._of_address = _of_service() | {"endpoint": address}
        self.last: Gauge = metrics.metrics_last_request_timestamp.labels(**_of_service())
        self.in_progress: Gauge = metrics.metrics_request_in_progress.labels(**self._of_address)
        self._answers: dict[int, tuple[Counter, Histogram]] = {}

    def answered(self, status: int, seconds: float) -> None:
        """Count an answer."""
        if status not in self._answers:
            labels = self._of_address | {"http_response_code": status}
            total, duration = self._metrics.metrics_request_total, self._metrics.metrics_request_duration
            self._answers[status] = total.labels(**labels), duration.labels(**labels)
        count, duration = self._answers[status]
        count.inc()
        duration.observe(seconds)


def _of_service() -> dict[str, str | None]:
    return {
        "service_name": server_context.bento_name,
        "service_version": server_context.bento_version,
        "runner_name": server_context.service_name,
    }


class Direct:
    """ASGI middleware: requests to `addresses` (to names of batchable APIs) go straight there, all others to `app`."""

    def __init__(self, app: RunnerTrafficMetricsMiddleware, factory: BatchingApp, addresses: dict[str, str]) -> None:
        self.factory = factory
        self.others = app
        self.addresses = addresses
        self.headers = ((b"server", f"BentoML Service/{factory.service.name}".encode()),)
        self._traffic: dict[str, Traffic] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = scope.get("path", "")
        if address == "/metrics":
            await to_thread.run_sync(self.factory.service_instance.watch.flush)
        if address not in self.addresses or scope["type"] != "http" or scope["method"] != "POST":
            await self.others(scope, receive, send)
            return
        begun = time.perf_counter()
        traffic = self._traffic_of(address)
        traffic.last.set_to_current_time()
        traffic.in_progress.inc()
        try:
            response = await self._answer(self.addresses[address], Request(scope, receive))
            response.raw_headers.extend(self.headers)
            await response(scope, receive, send)
            traffic.answered(response.status_code, time.perf_counter() - begun)
        finally:
            traffic.in_progress.dec()

    async def _answer(self, name: str, request: Request) -> Response:
        limit = asyncio.timeout(self.factory.timeout)
        try:
            async with limit:
                response = await self.factory.api_endpoint(name, request)
        except Exception:
            if not limit.expired():
                log_exception(request)
                return Fault.of_status(500, self.factory.timeout).answer(request)
        if limit.expired():  # also when BentoML's dispatcher made something else of the cancellation
            return Fault.of_status(504, self.factory.timeout).answer(request)
        return response

    def _traffic_of(self, address: str) -> Traffic:
        if not self.others._is_setup:
            self.others._setup()
        if address not in self._traffic:
            self._traffic[address] = Traffic(self.others, address)
        return self._traffic[address]
