"""A worker with more connections than another leaves new ones to that, but not for ever. (Real workers share them out
in tests/service/test_workers.py.)"""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path
from typing import cast

import uvloop

from training.serving.accepting import LEAVE_S, SharingServer
from training.serving.board import Board, Figure


class Greeter(asyncio.Protocol):
    """Greets at once; counts connections as the service's protocol does."""

    def __init__(self, board: Board) -> None:
        self.board = board

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # the loop alone would not keep it
        self.board.add(Figure.CONNECTIONS, 1)
        self.transport.write(b"hello")


def greeted_after(board: Board, connections: int) -> list[float]:
    """Seconds until so many clients, one after another, are greeted."""

    async def scenario() -> list[float]:
        listening = socket.create_server(("127.0.0.1", 0))
        server = SharingServer(asyncio.get_running_loop(), listening, lambda: Greeter(board), 100, board)
        times = []
        writers = []
        for _ in range(connections):
            begun = time.perf_counter()
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            assert await asyncio.wait_for(reader.readexactly(5), 5) == b"hello"
            times.append(time.perf_counter() - begun)
            writers.append(writer)
        server.close()
        await server.wait_closed()
        listening.close()
        for writer in writers:
            writer.close()
        return times

    return uvloop.run(scenario())


def test_with_as_few_as_any_it_accepts_at_once(tmp_path: Path) -> None:
    assert min(greeted_after(Board(tmp_path / "board", 1), 20)) < LEAVE_S / 2


def test_with_more_than_another_it_leaves_them_to_that_for_a_moment(tmp_path: Path) -> None:
    board = Board(tmp_path / "board", 2)  # the other worker has none, and never accepts
    first, *others = greeted_after(board, 5)
    assert first < min(others)
    assert min(others) > 0.9 * LEAVE_S
    assert max(others) < 1
