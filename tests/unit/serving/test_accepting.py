"""A worker with more connections than another leaves new ones to that, but not for ever. (Real workers share them out
in tests/service/test_workers.py.)"""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path
from typing import cast

import uvloop

from tests.unit.serving.test_shared_counters import start
from training.serving.connections.accepting import LEAVE_S, SharingServer
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


async def greeted(port: int) -> float:
    """Seconds until a client is greeted."""
    begun = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await asyncio.wait_for(reader.readexactly(5), 5) == b"hello"
    OPEN.append(writer)
    return time.perf_counter() - begun


def greeted_after(counters: SharedCounters, connections: int, at_once: bool = False) -> list[float]:
    """Seconds until so many clients, one after another or all at once, are greeted."""

    async def scenario() -> list[float]:
        listening = socket.create_server(("127.0.0.1", 0))
        server = SharingServer(asyncio.get_running_loop(), listening, lambda: Greeter(counters), 100, counters)
        port = server.sockets[0].getsockname()[1]
        if at_once:
            times = await asyncio.gather(*(greeted(port) for _ in range(connections)))
        else:
            times = [await greeted(port) for _ in range(connections)]
        server.close()
        await server.wait_closed()
        listening.close()
        while OPEN:
            OPEN.pop().close()
        return times

    return uvloop.run(scenario())


def test_with_as_few_as_any_it_accepts_at_once(tmp_path: Path) -> None:
    assert min(greeted_after(SharedCounters(tmp_path / "counters", 1), 20)) < LEAVE_S / 2


def test_with_more_than_another_it_leaves_them_to_that_for_a_moment(tmp_path: Path) -> None:
    with start(tmp_path / "counters", connections=0) as other:  # which never accepts
        first, *others = greeted_after(SharedCounters(tmp_path / "counters", 2), 5)
        other.kill()
    assert first < min(others)
    assert min(others) > 0.9 * LEAVE_S
    assert max(others) < 1


def test_many_at_once_wait_for_another_that_never_accepts_only_once(tmp_path: Path) -> None:
    with start(tmp_path / "counters", connections=0) as other:
        times = greeted_after(SharedCounters(tmp_path / "counters", 2), 40, at_once=True)
        other.kill()
    assert max(times) < 10 * LEAVE_S
