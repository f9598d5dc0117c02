"""Connections that cost too much: uvicorn waits without bounds for a head, for the rest of a body that it has answered
already and for a client that reads nothing; and it answers those who come back at once, though told to wait, at the
cost of those it has accepted."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import sys
import termios
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import httptools
import uvicorn.config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from training.serving.connections.shared_counters import Count, SharedCounters
from training.serving.errors import OVERLOADED, Fault

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application
    from uvicorn.config import HTTPProtocolType

    from training.params import Serve

MAX_HEAD_BYTES = 64 * 1024
MIN_READ_BYTES = 16 * 1024  # bytes of an answer that a client must take in each `seconds`, or all that is left
LOG_PAUSE_S = 60.0  # between lines of the log about requests that were none: a scan of the internet sends thousands
LIMIT = "limit"  # in the state of a request: its asyncio.Timeout
OFFERS = (b"upgrade", b"http2-settings")  # headers that offer another protocol: HTTP/1.1 may go on, and does here
OVERLOAD_PAUSE_S = 0.2  # not read after a refusal for overload: without it p99 of the accepted is 1.9 times as long

_T = TypeVar("_T")
log = logging.getLogger("bentoml.connections")


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with bounds on the time and bytes of a head, on the time in which a client reads what it is
    sent, a rest for those refused for overload, and HTTP/1.1 for who offers another protocol."""

    seconds: ClassVar[float]
    keep_alive: ClassVar[float]
    version: ClassVar[str]
    count: ClassVar[Callable[[str], None]]
    refused: ClassVar[Counter[str]] = Counter()  # since the log last told of them
    told: ClassVar[float] = -LOG_PAUSE_S
    counters: ClassVar[SharedCounters]
    _head_timer: asyncio.TimerHandle | None = None  # a head, or the rest of a body, is expected
    _head_bytes = 0  # of that head
    _unread_timer: asyncio.TimerHandle | None = None  # something that was sent is not read
    _current: RequestResponseCycle | None = None  # uvicorn's `cycle` is the last request that came
    _ignores = False  # what else comes: the last answer is on its way

    @classmethod
    def install(cls, settings: Serve, version: str, counters: SharedCounters, count: Callable[[str], None]) -> None:
        """Make uvicorn use it, and no WebSockets: BentoML leaves the choice of the protocols to uvicorn.
        `version` is of the model; `count` gets the code of each refusal."""
        cls.seconds, cls.keep_alive = settings.upload_timeout, settings.keep_alive
        cls.version, cls.counters, cls.count = version, counters, staticmethod(count)
        protocol: HTTPProtocolType = "auto"
        uvicorn.config.HTTP_PROTOCOLS[protocol] = f"{cls.__module__}:{cls.__qualname__}"
        uvicorn.config.WS_PROTOCOLS["auto"] = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.timeout_keep_alive = self.keep_alive  # type: ignore[assignment]  # call_later takes fractions
        self.counters.add(Count.CONNECTIONS, 1)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._stop_watching_unread()
        self.counters.add(Count.CONNECTIONS, -1)
        if self._current is not None and not self._current.response_complete:
            self._current.disconnected = True
            self._current.message_event.set()
            state = self._current.scope["state"]
            if LIMIT in state:
                state["gone"] = True
                state[LIMIT].reschedule(self.loop.time())
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._current = cycle
        super()._start_asgi_task(cycle, app)

    def eof_received(self) -> bool:  # type: ignore[override]  # True: the connection stays open for the answer
        """A client that closes its sending side behind a whole request still gets the answer."""
        answering = self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete
        if answering:
            self.cycle.keep_alive = False
        return answering

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_unread()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._watch_unread()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self._start_head_timer()

    def on_headers_complete(self) -> None:
        self._stop_head_timer()
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEAD_BYTES:
            raise _long_head()
        if self.parser.get_method() == b"CONNECT":
            raise Fault.of_status(405, self.seconds)
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        if self._is_answered_early():
            self.cycle.more_body = False
            self._stop_head_timer()
            self._keep_alive()
        else:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        refused = self.cycle is not None and self.cycle.scope["state"].get("fault") == OVERLOADED
        super().on_response_complete()
        if self._is_answered_early():
            self._start_head_timer()
        self._watch_unread()
        if refused and not self.transport.is_closing() and not self._is_shared():
            self.flow.pause_reading()
            self.loop.call_later(OVERLOAD_PAUSE_S, self._resume_reading)

    def _is_shared(self) -> bool:
        """Whether a proxy is at the other end: it may send another client's request on the same connection."""
        names = {name for name, _ in self.cycle.scope["headers"]}
        return bool(names & {b"x-forwarded-for", b"forwarded", b"via"})

    def _resume_reading(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._ignores:
            return
        expected = self._head_timer
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            cause = error.__context__  # what a callback raised
            plain = Fault(400, "invalid_http", "Invalid HTTP request received.", "speak HTTP/1.1")
            self._refuse(cause if isinstance(cause, Fault) else plain)
            return
        if self._has_no_timer():
            self._start_head_timer()
        if expected is None or self._head_timer is not expected or self._is_answered_early():
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(_long_head())

    def _parse(self, data: bytes) -> None:
        """Have the parser read. It takes what follows an offer of another protocol for words of that, a body too:
        then another one reads the request without the offer."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            version, method = self.parser.get_http_version().encode(), self.parser.get_method()
            lines = [method + b" " + self.url + b" HTTP/" + version]
            lines += [name + b": " + _without_offer(name, value) for name, value in self.headers if name not in OFFERS]
            self.parser = httptools.HttpRequestParser(self)
            self._parse(b"\r\n".join([*lines, b"", data[offer.args[0] :]]))

    def _is_answered_early(self) -> bool:
        """Whether the answer was complete before the request was; what is left of it is read and thrown away."""
        return self.cycle is not None and self.cycle.response_complete and self.cycle.more_body

    def _has_no_timer(self) -> bool:
        """Whether nobody waits for anything: uvicorn stops waiting at any byte, though it may begin no head."""
        return (
            self._head_timer is None
            and self.timeout_keep_alive_task is None
            and self.cycle is not None
            and self.cycle.response_complete
            and not self.pipeline
        )

    def _keep_alive(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _watch_unread(self) -> None:
        """Look in a while whether the client has read of what it was sent; there may be nothing to read."""
        self._stop_watching_unread()
        unread = self._unread()
        if unread:
            self._unread_timer = self.loop.call_later(self.seconds, self._check_unread, unread)

    def _stop_watching_unread(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
        self._unread_timer = None

    def _unread(self) -> int:
        """Bytes that wait here, and with them those that the system holds for the client: it takes more from here only
        when a good part of its own, which may be megabytes, has gone."""
        waiting = self.transport.get_write_buffer_size()
        if not waiting:
            return 0
        held = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        return waiting + int.from_bytes(held, sys.byteorder)

    def _check_unread(self, before: int) -> None:
        """Give the client up if it reads nothing: closing would wait for it. What is being answered adds to what is
        unread, and is looked at when it is complete, or cannot be written."""
        writes = self._current is not None and not self._current.response_complete and not self.flow.write_paused
        if self._unread() > max(0, before - MIN_READ_BYTES) and not writes:
            self.transport.abort()
        else:
            self._watch_unread()

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.seconds, self._head_timed_out)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._head_timer, self._head_bytes = None, 0

    def _head_timed_out(self) -> None:
        if self._current is not None and not self._current.response_complete:
            self._current.keep_alive = False  # its answer comes first, and ends the connection
            self._head_timer = None
            self._start_head_timer()
            return
        message = f"no complete request came within {self.seconds:g} s"
        self._refuse(Fault(408, "slow_head", message, "send the request at once"))

    def _refuse(self, fault: Fault) -> None:
        """Answer, unless an answer to an earlier request is on its way, and hang up."""
        self._stop_head_timer()
        if self.transport.is_closing():
            return
        self._count(fault.code)
        if self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            self._ignores, self.cycle.keep_alive = True, False  # it came whole: its answer ends the connection
            return
        if self.cycle is None or (self.cycle.response_complete and not self.cycle.more_body):
            request_id = uuid.uuid4().hex
            response = fault.response(request_id)
            response.headers.update({"X-Request-ID": request_id, "X-Model-Version": self.version})
            lines = [name + b": " + value + b"\r\n" for name, value in response.raw_headers]
            head = STATUS_LINE[fault.status] + b"".join(lines) + b"connection: close\r\n\r\n"
            self.transport.write(head + bytes(response.body))
        self.transport.close()
        self._watch_unread()

    def _count(self, code: str) -> None:
        """Count a refusal; the log tells of many together."""
        cls = type(self)
        cls.count(code)
        cls.refused[code] += 1
        now = time.monotonic()
        if now - cls.told >= LOG_PAUSE_S:
            counts = ", ".join(f"{code} {number}" for code, number in cls.refused.items())
            log.warning("connections without a proper request were refused, since this was last told: %s", counts)
            cls.told = now
            cls.refused.clear()


async def until_gone(state: dict[str, Any], limit: asyncio.Timeout, work: Awaitable[_T]) -> _T:
    """What comes of the work on a request with that state. It ends, as by `limit`, when the client hangs up; then
    `state["gone"]` is true."""
    state["gone"] = False
    async with limit:
        state[LIMIT] = limit
        try:
            return await work
        finally:
            del state[LIMIT]


def _long_head() -> Fault:
    return Fault(431, "long_head", f"the headers exceed {MAX_HEAD_BYTES} bytes", "send fewer headers")


def _without_offer(name: bytes, value: bytes) -> bytes:
    """The value of a header; of Connection, without what belongs to the offer."""
    if name != b"connection":
        return value
    return b", ".join(word for word in map(bytes.strip, value.split(b",")) if word.lower() not in OFFERS)
