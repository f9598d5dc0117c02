"""BentoML's metrics of requests, with the labels of each address looked up once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from bentoml._internal.context import server_context
from bentoml._internal.server.http.instruments import RunnerTrafficMetricsMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

FAILURES = (503, 504)  # beside 200 and 500, with which BentoML itself begins


class Traffic:
    """The metrics of the requests to one address."""

    def __init__(self, metrics: TrafficMetrics, address: str) -> None:
        self._metrics = metrics
        self._labels = _service_labels() | {"endpoint": address}
        self.last: Gauge = metrics.metrics_last_request_timestamp.labels(**_service_labels())
        self.in_progress: Gauge = metrics.metrics_request_in_progress.labels(**self._labels)
        self._answers: dict[int, tuple[Counter, Histogram]] = {}

    def answered(self, status: int, seconds: float) -> None:
        """Count an answer."""
        if status not in self._answers:
            labels = self._labels | {"http_response_code": status}
            total, duration = self._metrics.metrics_request_total, self._metrics.metrics_request_duration
            self._answers[status] = total.labels(**labels), duration.labels(**labels)
        count, duration = self._answers[status]
        count.inc()
        duration.observe(seconds)


class TrafficMetrics(RunnerTrafficMetricsMiddleware):
    """BentoML's metrics, outermost. Addresses must be known ones: each becomes a label (edge.py sees to that)."""

    def __init__(self, app: ASGIApp, addresses: list[str], **options: Any) -> None:
        super().__init__(app, **options)
        self._addresses = addresses
        self._traffic: dict[str, Traffic] = {}

    def _setup(self) -> None:  # type: ignore[override]  # its arguments are injected
        """At the start of the worker, not at its first request: on a disk that is full by then there is no room. Begin
        at 0 what alerts look at: Prometheus does not see the first failure in a series that begins at 1."""
        server_context.service_routes = self._addresses
        super()._setup()
        for address in self._addresses:
            self._look_up(address)
            for status in FAILURES:
                self.metrics_request_total.labels(**_service_labels(), endpoint=address, http_response_code=status)
        self.metrics_request_duration.labels(**_service_labels(), endpoint="/predict", http_response_code=200)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._is_setup:
            self._setup()
        if scope["type"] != "http" or scope["path"] == "/metrics":
            await self.app(scope, receive, send)
            return
        address, begun, status = scope["path"], time.perf_counter(), 0
        traffic = self._traffic.get(address) or self._look_up(address)

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body" and not message.get("more_body"):
                traffic.answered(status, time.perf_counter() - begun)
            await send(message)

        if not address.startswith(tuple(self.skip_paths)):
            traffic.last.set_to_current_time()
        traffic.in_progress.inc()
        try:
            await self.app(scope, receive, counted)
        finally:
            traffic.in_progress.dec()

    def _look_up(self, address: str) -> Traffic:
        traffic = self._traffic[address] = Traffic(self, address)
        return traffic


def _service_labels() -> dict[str, str | None]:
    return {
        "service_name": server_context.bento_name,
        "service_version": server_context.bento_version,
        "runner_name": server_context.service_name,
    }
