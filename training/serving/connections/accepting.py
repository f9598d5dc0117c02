"""Connections shared out evenly among workers that listen on one socket.

Without it throughput falls to 0.55 times at 8 clients and 0.59 at 32; with one process of several threads instead, to
0.88 at 32 (tests/load/results/ablation.md).

The system wakes whichever worker it likes: of 32 connections one worker was seen to take 30, and of 8 all, so that
half of the machine idled. Here a worker that has more connections than another leaves new ones to that for a moment.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import select
import socket
from collections.abc import Callable
from typing import Any, ClassVar

import uvicorn.config
import uvloop

from training.serving.connections.shared_counters import Count, SharedCounters

LEAVE_S = 0.1  # in which a connection is left to a worker with fewer; then whoever looks takes it
LOOK_S = 0.001  # between looks whether it is still there
OPEN_FILES = 65_536  # at most, of which each connection is one; systems allow 1,024 unless asked
FULL_S = 1.0  # between looks when the process may open no more files

log = logging.getLogger("bentoml.accepting")


class SharingLoop(uvloop.Loop):
    """uvloop's event loop, whose servers on a given socket share its connections with the other workers."""

    counters: ClassVar[SharedCounters]

    @classmethod
    def install(cls, counters: SharedCounters) -> None:
        """Make uvicorn use it: BentoML leaves the choice of the loop to uvicorn. And have room for connections."""
        cls.counters = counters
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        room = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < room:
            resource.setrlimit(resource.RLIMIT_NOFILE, (room, hard))
        uvicorn.config.LOOP_FACTORIES["auto"] = f"{__name__}:factory"

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **how: Any) -> Any:
        listening: socket.socket | None = how.get("sock")
        if listening is None or how.get("ssl") is not None or self.counters.workers == 1:
            return await super().create_server(protocol_factory, host, port, **how)
        return SharingServer(self, listening, protocol_factory, how.get("backlog", 100), self.counters)


def factory(use_subprocess: bool = False) -> Callable[[], asyncio.AbstractEventLoop]:  # noqa: ARG001 - uvicorn names it
    """What uvicorn makes its event loop with."""
    return SharingLoop


class SharingServer:
    """Accepts connections on a listening socket that other workers listen on too."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listening: socket.socket,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        backlog: int,
        counters: SharedCounters,
    ) -> None:
        self._loop, self._socket, self._factory, self._counters = loop, listening, protocol_factory, counters
        self._opening: set[asyncio.Task[None]] = set()
        self._later: asyncio.TimerHandle | None = None
        self._waiting = select.poll()
        self._waiting.register(listening, select.POLLIN)
        listening.setblocking(False)
        listening.listen(backlog)
        counters.add(Count.LISTENING, 1)
        self._read_on()

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        return (self._socket,)

    def close(self) -> None:
        self._counters.add(Count.LISTENING, -1)
        self._loop.remove_reader(self._socket)
        if self._later is not None:
            self._later.cancel()

    async def wait_closed(self) -> None:
        await asyncio.gather(*self._opening, return_exceptions=True)

    def _read_on(self) -> None:
        self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        """A connection is there: take it, or leave it. If there are more, the loop calls again."""
        if self._has_more_than_another():
            self._loop.remove_reader(self._socket)
            self._look_again(self._loop.time() + LEAVE_S)
        else:
            self._take()

    def _look_again(self, until: float) -> None:
        self._later = self._loop.call_later(LOOK_S, self._look, until)

    def _look(self, until: float) -> None:
        """Whether what was left is still there; from `until` on it is taken in any case, and what came after it too."""
        while self._waiting.poll(0):
            if self._has_more_than_another() and self._loop.time() < until:
                return self._look_again(until)
            if not self._take():
                return None
        self._read_on()

    def _has_more_than_another(self) -> bool:
        return self._counters.mine(Count.CONNECTIONS) + len(self._opening) > self._counters.fewest_connections()

    def _take(self) -> bool:
        """Accept a connection; False when none can be for a while."""
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return True
        except OSError as error:
            log.warning("no connection can be accepted: %s", error)
            self._loop.remove_reader(self._socket)
            self._later = self._loop.call_later(FULL_S, self._read_on)
            return False
        task = self._loop.create_task(self._open(connection))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return True

    async def _open(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            await self._loop.connect_accepted_socket(self._factory, connection)
        except OSError as error:  # the client is gone
            log.debug("a connection ended before it began: %s", error)
            connection.close()
