"""A worker with more connections than another leaves new ones to that, but not for ever. (Real workers share them out
in tests/service/test_workers.py.)"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import cast

import uvloop

from tests.unit.serving.test_shared_counters import start
from training.serving.connections.accepting import SharingServer
from training.serving.connections.shared_counters import Count, SharedCounters

OPEN: list[asyncio.StreamWriter] = []  # of clients


class Greeter(asyncio.Protocol):
    """Greets at once; counts connections as the service's protocol does."""

    def __init__(self, counters: SharedCounters) -> None:
        self.counters = counters

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # the loop alone would not keep it
        self.counters.add(Count.CONNECTIONS, 1)
        self.transport.write(b"hello")


class Leaving(SharingServer):
    """Notes until when it left connections to others, and that it takes none of them before."""

    def __init__(self, counters: SharedCounters) -> None:
        self.left: list[float] = []
        loop, listening = asyncio.get_running_loop(), socket.create_server(("127.0.0.1", 0))
        super().__init__(loop, listening, lambda: Greeter(counters), 100, counters)

    def _look_again(self, until: float) -> None:
        if until not in self.left:
            self.left.append(until)
        super()._look_again(until)

    def _take(self) -> bool:
        assert not self.left or self._loop.time() >= self.left[-1]
        return super()._take()


async def greeted(server: Leaving) -> int:
    """How many times connections had been left when a client was greeted."""
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    assert await asyncio.wait_for(reader.readexactly(5), 60) == b"hello"
    OPEN.append(writer)
    left = len(server.left)
    while server._opening:  # a moment after the greeting it still counts as one that is about to open
        await asyncio.sleep(0)
    return left


def left_before(counters: SharedCounters, connections: int, at_once: bool = False) -> list[int]:
    """How many times connections had been left when so many clients, one after another or all at once, were greeted."""

    async def scenario() -> list[int]:
        server = Leaving(counters)
        if at_once:
            times = await asyncio.gather(*(greeted(server) for _ in range(connections)))
        else:
            times = [await greeted(server) for _ in range(connections)]
        server.close()
        await server.wait_closed()
        server.sockets[0].close()
        while OPEN:
            OPEN.pop().close()
        return times

    return uvloop.run(scenario())


def test_with_as_few_as_any_it_accepts_at_once(tmp_path: Path) -> None:
    assert left_before(SharedCounters(tmp_path / "counters", 1), 20) == [0] * 20


def test_with_more_than_another_it_leaves_them_to_that_for_a_moment(tmp_path: Path) -> None:
    with start(tmp_path / "counters", connections=0) as other:  # which never accepts
        assert left_before(SharedCounters(tmp_path / "counters", 2), 5) == [0, 1, 2, 3, 4]
        other.kill()


def test_many_at_once_wait_for_another_that_never_accepts_only_once(tmp_path: Path) -> None:
    with start(tmp_path / "counters", connections=0) as other:
        times = left_before(SharedCounters(tmp_path / "counters", 2), 40, at_once=True)
        other.kill()
    assert max(times) < 10  # one after another it would be 39
