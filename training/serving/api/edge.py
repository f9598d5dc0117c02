"""What a request meets first: its id, keys, rate, known addresses; and the one shape every error leaves in.

This stands before BentoML's own middleware, because a metric of BentoML carries the address as it was sent: an unknown
one must not get there, or every scan of the internet makes new time series.
"""

from __future__ import annotations

import hmac
import re
import time
import uuid
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from training.params import Serve
from training.serving.bento import logs
from training.serving.connections.drain import Drain
from training.serving.errors import Fault
from training.serving.records import metrics

KEYED = ("/predict", "/predict_batch", "/explain", "/heatmap", "/feedback")
PRIVATE = ("/ui/samples/", "/ui/mistakes/")  # pictures of the data: they need a key too, and count for no rate
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
BURST = 10  # seconds of its rate a client may use at once
CLIENTS = 10_000  # remembered by the rate limit


class Edge:
    """ASGI middleware around the whole service."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Serve,
        paths: Collection[str],
        keys: tuple[bytes, ...],
        version: str,
        drain: Drain,
    ) -> None:
        self.app = app
        self.settings = settings
        self.paths = frozenset(paths)
        self.keys = keys
        self.headers = ((b"x-model-version", version.encode()), (b"x-content-type-options", b"nosniff"))
        self.drain = drain
        self.rate = RateLimit(settings.rate_limit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers: dict[bytes, bytes] = dict(scope["headers"])
        state = scope.setdefault("state", {})
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        state["request_id"] = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        state["received"], state["timing"] = time.perf_counter(), {}
        logs.REQUEST_ID.set(state["request_id"])
        exit_ = _Exit(self, scope, receive, send)
        try:
            self._admit(scope, headers)
        except Fault as fault:
            return await exit_.answer(fault)
        await self.app(scope, receive, exit_.send)

    def _admit(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        path = scope["path"]
        scope["state"]["client"] = address = (scope.get("client") or ("",))[0]
        if path not in self.paths:
            raise Fault.of_status(404, self.settings.timeout)
        if path not in KEYED and not path.startswith(PRIVATE):
            return
        key = _key(headers)
        matches = [hmac.compare_digest(key, known) for known in self.keys]  # all of them: time must not tell which
        if self.keys and not any(matches):
            hint = "send a key as X-API-Key or as Authorization: Bearer"
            raise Fault(401, "no_valid_key", "this address needs an API key", hint, WWW_Authenticate="Bearer")
        if path not in KEYED:
            return
        scope["state"]["client"] = client = key.decode("latin-1") if self.keys else address
        wait = self.rate.take(client)
        if wait > 0:
            message = f"more than {self.settings.rate_limit:g} requests a second"
            raise Fault(429, "too_many_requests", message, "send fewer", Retry_After=str(int(wait) + 1))


class _Exit:
    """The way out of one request: adds the headers, gives errors of others our shape, never answers twice."""

    def __init__(self, edge: Edge, scope: Scope, receive: Receive, send: Send) -> None:
        self.edge, self.scope, self.receive, self._send = edge, scope, receive, send
        self.replacement: Fault | None = None
        self.finished = False

    async def send(self, message: Message) -> None:
        if self.finished:
            return  # BentoML's timeout has answered already
        if message["type"] == "http.response.start":
            fault = self.scope["state"].get("fault")
            if message["status"] >= 400 and fault is None:
                self.replacement = Fault.of_status(message["status"], self.edge.settings.timeout)
                allow = Headers(raw=message["headers"]).get("allow")
                self.replacement.headers |= {"Allow": allow} if allow else {}
                return
            if fault is not None:
                metrics.REJECTIONS.labels(fault).inc()
            self._mark(message)
        elif self.replacement is not None:
            if not message.get("more_body"):
                await self.answer(self.replacement)
            return
        self.finished = message["type"] == "http.response.body" and not message.get("more_body")
        await self._send(message)

    async def answer(self, fault: Fault) -> None:
        self.replacement = None
        self.scope["state"]["fault"] = fault.code
        await fault.response(self.scope["state"]["request_id"])(self.scope, self.receive, self.send)

    def _mark(self, message: Message) -> None:
        state = self.scope["state"]
        took = {**state["timing"], "total": time.perf_counter() - state["received"]}
        timing = ", ".join([f"{name};dur={seconds * 1000:.1f}" for name, seconds in took.items()])
        headers = [
            *message["headers"],
            (b"x-request-id", state["request_id"].encode()),
            (b"server-timing", timing.encode()),
            *self.edge.headers,
        ]
        if self.edge.drain.began:
            headers = [*((name, value) for name, value in headers if name != b"connection"), (b"connection", b"close")]
        message["headers"] = headers


class RateLimit:
    """A token bucket for each client; the least recent of many are forgotten."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """0 when the client may go on, else the seconds until it may."""
        if not self.rate:
            return 0.0
        full = max(1.0, self.rate * BURST)
        now = time.monotonic()
        tokens, since = self._buckets.pop(client, (full, now))
        tokens = min(full, tokens + (now - since) * self.rate)
        allowed = tokens >= 1
        self._buckets[client] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) / self.rate


class Cors(CORSMiddleware):
    """Starlette's, with preflights answered in the shape of all other answers. It stands around the edge, so that
    scripts of the pages that are allowed can read errors too."""

    def __init__(self, app: ASGIApp, origins: Sequence[str], version: str) -> None:
        super().__init__(
            app,
            origins,
            allow_methods=("GET", "POST"),
            allow_headers=("Authorization", "X-API-Key", "X-Request-ID"),
            expose_headers=("X-Request-ID", "X-Model-Version", "Retry-After", "Server-Timing"),
        )
        self.version = version

    def preflight_response(self, request_headers: Headers) -> Response:
        given, request_id = super().preflight_response(request_headers), uuid.uuid4().hex
        response = given
        if given.status_code >= 400:
            metrics.REJECTIONS.labels("not_allowed").inc()
            hint = "the service's setting cors_origins names the pages that may call it"
            response = Fault(given.status_code, "not_allowed", bytes(given.body).decode(), hint).response(request_id)
            names = [name for name in given.headers if name == "vary" or name.startswith("access-control-")]
            response.headers.update({name: given.headers[name] for name in names})
        response.headers.update({"X-Request-ID": request_id, "X-Model-Version": self.version})
        return response


def _key(headers: Mapping[bytes, bytes]) -> bytes:
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    bearer = token.strip() if scheme.lower() == b"bearer" else b""
    return headers.get(b"x-api-key") or bearer
