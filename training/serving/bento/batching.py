"""BentoML's adaptive batching, tuned: several batches at once, and no waiting for company.

BentoML holds a request back in the hope of a larger batch, also a lone one for many milliseconds after a busy time,
runs one batch at a time, and looks for the next one by the clock. Here a batch is whatever queued up while the network
was busy, every core has one to run, with one more prepared, and the next starts when one ends. Queue, batches and the
metric `bentoml_service_adaptive_batch_size` stay BentoML's own; its dispatcher is called directly, because what BentoML
does around it costs a twentieth of all processor time. With BentoML's own loop a lone client gets 0.02 times the
answers, 8 clients 0.87 times (tests/load/results/ablation.md).
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from _bentoml_impl.server.app import ContextMiddleware, ServiceAppFactory
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.context import server_context
from bentoml._internal.marshal.dispatcher import CorkDispatcher, Job, NonBlockSema
from bentoml._internal.server.http.traffic import TimeoutMiddleware
from bentoml.exceptions import BentoMLException, ServiceUnavailable
from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from training.serving.bento import tracing
from training.serving.bento.direct import Direct
from training.serving.bento.traffic import TrafficMetrics
from training.serving.errors import Fault, overloaded

if TYPE_CHECKING:
    from training.params import Serve

log = logging.getLogger("bentoml.batching")

INNER = {TimeoutMiddleware, ContextMiddleware}

Batched = Callable[[list[Any]], Coroutine[None, None, Any]]


class Dispatcher(CorkDispatcher[Any, Any]):
    """BentoML's dispatcher of a batchable API; at most `batches` run at once, each of at most `max_batch` pictures."""

    def __init__(self, batches: int, max_batch: int, fallback: Callable[[], NoReturn]) -> None:
        super().__init__(0, max_batch, shared_sema=NonBlockSema(batches), fallback=fallback, get_batch_size=len)
        self._running: set[asyncio.Task[None]] = set()
        self._woken = False

    def split_job(self, job: Any, split_indexes: list[int]) -> tuple[Any, Any]:
        """Part a request of many pictures; the parts end with it."""
        parts = super().split_job(job, split_indexes)

        def end(_: object) -> None:
            for part in parts:
                part.future.cancel()

        if job.future.done():
            end(job)
        else:
            job.future.add_done_callback(end)
        return parts

    async def controller(self) -> None:
        """Nothing: BentoML's looks every millisecond for a batch to start; here arrivals and ends of batches say so."""

    async def inbound_call(self, data: Any) -> Any:
        """Queue the pictures of a request, and wait for what comes of them."""
        future = self._loop.create_future()
        self._queue.append(Job(time.time(), data, future))
        self._wake()
        return await future

    async def outbound_call(self, inputs_info: tuple[Any, ...], training: bool = False) -> None:
        """Run a batch; then another may start."""
        try:
            await super().outbound_call(inputs_info, training)
        finally:
            self._wake()

    def _wake(self) -> None:
        if not self._woken:  # what else arrives in this turn of the event loop joins the same batch
            self._woken = True
            self._loop.call_soon(self._start)

    def _start(self) -> None:
        """Start batches as long as pictures wait and one more may run; leave out those nobody waits for any more."""
        self._woken = False
        while self._queue and self._sema.sema:
            try:
                jobs = tuple(job for job in self._get_inputs() if not job.future.done())
            except Exception:  # as BentoML does: one odd request must not end the batching of all
                log.exception("a request cannot be batched")
                continue
            if jobs:
                self._sema.acquire()  # type: ignore[no-untyped-call]
                task = self._loop.create_task(self.outbound_call(jobs))
                self._running.add(task)  # the loop alone would not keep it
                task.add_done_callback(self._running.discard)


class BatchingApp(ServiceAppFactory):
    """BentoML's application of a service, with the tuned batching and with a Fault answered as what it is."""

    def __init__(self, service: Any, settings: Serve, threads: int, is_main: bool) -> None:
        super().__init__(service, is_main=is_main)
        self.settings = settings
        self._batched: dict[str, Batched] = {}
        for name, theirs in self.dispatchers.items():
            own = Dispatcher(threads + 1, settings.max_batch, theirs.fallback)
            self.dispatchers[name] = own
            self._batched[name] = own(functools.partial(self._run, name))
        self._traced = False

    @property
    def service_instance(self) -> Any:
        """The object with the APIs."""
        return self._service_instance

    async def _run(self, name: str, lists: Sequence[list[Any]]) -> list[list[Any]]:
        """Run a batchable API once for the lists of several requests."""
        if self.enable_metrics:
            self.adaptive_batch_size_hist.labels(
                runner_name=self.service.name,
                worker_index=server_context.worker_index,
                method_name=name,
                service_version=server_context.bento_version,
                service_name=server_context.bento_name,
            ).observe(len(lists))
        api = self.service.apis[name]
        results = iter(await api.func(self._service_instance, [item for items in lists for item in items]))
        return [list(itertools.islice(results, len(items))) for items in lists]

    async def _answer(self, name: str, request: Request) -> Response:
        """BentoML's way of a batchable API, without all that it works out anew for every request."""
        api = self.service.apis[name]
        given = await api.input_spec.from_http_request(request, None)
        [items] = vars(given).values()
        response: Response = await api.output_spec.to_http_response(await self._batched[name](items), None)
        return response

    @property
    def middlewares(self) -> list[Middleware]:
        """What BentoML puts directly around its routes. The rest stands further out, around the batchable APIs too: see
        `wrapped`."""
        return [each for each in super().middlewares if each.cls in INNER]

    def wrapped(self, app: ASGIApp, addresses: list[str]) -> ASGIApp:
        """`app`, which this made, behind the direct way to the batchable APIs, behind what is switched on (traces, the
        access log, middleware of one's own), behind the metrics, which count the requests to `addresses`."""
        outer = [each for each in super().middlewares if each.cls not in INNER]
        metrics = outer.pop(0) if self.enable_metrics else None
        direct = Direct(app, self, {self.service.apis[name].route: name for name in self._batched})
        wrapped: ASGIApp = direct
        for each in reversed(outer):
            if each.cls is not OpenTelemetryMiddleware or self._traces(each):
                wrapped = each.cls(wrapped, *each.args, **each.kwargs)
        return wrapped if metrics is None else TrafficMetrics(wrapped, addresses, **metrics.kwargs)

    def _traces(self, middleware: Middleware) -> bool:
        """Whether anything collects spans, by BentoML's configuration or by the standard variables."""
        kind = tracing.exporter()
        if kind:
            middleware.kwargs["tracer_provider"] = tracing.provider(kind)
            middleware.kwargs["excluded_urls"] = tracing.excluded()
            middleware.kwargs["exclude_spans"] = ["receive", "send"]
        self._traced = bool(kind or BentoMLContainer.config.tracing.exporter_type.get())
        return self._traced

    async def api_endpoint(self, name: str, request: Request) -> Response:
        """Answer an API's request. An unexpected error goes on to BentoML, which logs it and answers 500."""
        if self._traced:
            trace.get_current_span().set_attribute("request_id", request.state.request_id)
        try:
            own = self._answer if name in self._batched else super().api_endpoint
            response: Response = await own(name, request)
            return response
        except Fault as fault:
            return fault.answer(request)
        except ServiceUnavailable:
            return overloaded("the queue of the network is full").answer(request)
        except BentoMLException as error:
            return Fault.of_status(error.error_code.value, self.settings.timeout).answer(request)
        finally:
            if self._service_instance is not None:
                self._service_instance.reader.leave(request)
