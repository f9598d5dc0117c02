"""The way to a batchable API, past BentoML's routing.

BentoML leads each request through ten layers of middleware and routing and a task of its own, which take the event loop
several times what the HTTP server itself does. Nothing there is needed for an API whose input and output are known,
except its time limit and its header: those are here. Every other address goes on to BentoML. Without it throughput is
0.88 times at 32 clients, and a request takes 1.15 times the CPU (tests/load/results/ablation.md).
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from _bentoml_impl.server.app import log_exception
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from training.serving.connections.protocol import until_gone
from training.serving.errors import Fault, disconnected


class ServiceApp(Protocol):
    """What the direct way needs of BentoML's application of a service."""

    service: Any
    timeout: float

    @property
    def service_instance(self) -> Any: ...

    async def api_endpoint(self, name: str, request: Request) -> Response: ...


class Direct:
    """ASGI middleware: requests to `addresses` (to names of batchable APIs) go straight there, all others to `app`."""

    def __init__(self, app: ASGIApp, factory: ServiceApp, addresses: dict[str, str]) -> None:
        self.app = app
        self.factory = factory
        self.addresses = addresses
        self.headers = ((b"server", f"BentoML Service/{factory.service.name}".encode()),)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = scope.get("path", "")
        if address == "/metrics":
            await to_thread.run_sync(self.factory.service_instance.watch.flush)
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if address not in self.addresses or scope["method"] != "POST":
            await self._others(scope, receive, send)
            return
        response = await self._answer(self.addresses[address], Request(scope, receive))
        response.raw_headers.extend(self.headers)
        await response(scope, receive, send)

    async def _others(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Starlette raises again what it has answered with 500. uvicorn would break the connection after that answer,
        though it promised to keep it: the client's next request would be lost."""
        answered = False
        limit = asyncio.timeout(None)

        async def watched(message: Message) -> None:
            nonlocal answered
            await send(message)
            answered = message["type"] == "http.response.body" and not message.get("more_body")

        try:
            await until_gone(scope["state"], limit, self.app(scope, receive, watched))
        except Exception:
            if limit.expired():
                return await disconnected().answer(Request(scope))(scope, receive, send)
            if not answered:
                raise
            log_exception(Request(scope))

    async def _answer(self, name: str, request: Request) -> Response:
        limit = asyncio.timeout(self.factory.timeout)
        try:
            response = await until_gone(request.scope["state"], limit, self.factory.api_endpoint(name, request))
        except Exception:
            if not limit.expired():
                log_exception(request)
                return Fault.of_status(500, self.factory.timeout).answer(request)
        if limit.expired():  # also when BentoML's dispatcher made something else of the cancellation
            if request.state.gone:
                return disconnected().answer(request)
            return Fault.of_status(504, self.factory.timeout).answer(request)
        return response
