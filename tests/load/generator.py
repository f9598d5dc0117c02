"""A load generator in a process of its own, light enough to share the machine with what it measures.

Closed loop: each of `concurrency` connections sends its next request when the last one was answered. With a `rate`,
requests are due at fixed moments instead, and times count from the moment a request was due, so that a slow server
cannot hide what it made others wait (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

import numpy as np
import uvloop

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
RETRY_AFTER = re.compile(rb"\r\nretry-after: *(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
BROKEN = 0  # stands for a status where no answer came
ANSWER_S = 60.0  # no answer after this long counts as none


@dataclass(frozen=True)
class Load:
    """What to send: whole HTTP requests, in turn. `obeys`: a client that is told Retry-After waits that long."""

    port: int
    requests: tuple[bytes, ...]
    concurrency: int
    seconds: float
    rate: float | None = None
    obeys: bool = True


@dataclass
class Outcome:
    """What came back: seconds of each answer by status, and what the generator itself cost."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    times: dict[int, list[float]] = field(default_factory=dict)

    @property
    def answered(self) -> int:
        return len(self.times.get(200, ()))

    @property
    def throughput(self) -> float:
        """Good answers a second."""
        return self.answered / self.seconds

    @property
    def statuses(self) -> Counter[int]:
        return Counter({status: len(times) for status, times in self.times.items()})

    @property
    def errors(self) -> int:
        return self.statuses.total() - self.answered

    def milliseconds(self, quantile: float) -> float:
        """Of the good answers; infinite without any."""
        times = self.times.get(200)
        return float(np.quantile(times, quantile)) * 1000 if times else float("inf")


def send(load: Load) -> Outcome:
    """Generate `load` in another process against 127.0.0.1."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(_run, load).result()


def _run(load: Load) -> Outcome:
    return uvloop.run(_all_clients(load))


async def _all_clients(load: Load) -> Outcome:
    outcome, numbers = Outcome(), itertools.count()
    begun, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(_client(load, numbers, begun, outcome) for _ in range(load.concurrency)))
    outcome.seconds = time.perf_counter() - begun
    outcome.cpu_seconds = time.process_time() - cpu
    return outcome


async def _client(load: Load, numbers: Iterator[int], begun: float, outcome: Outcome) -> None:
    """One connection until the time is over, opened anew when the server closes it."""
    connection: _Connection | None = None
    while True:
        number = next(numbers)
        due = begun + number / load.rate if load.rate else time.perf_counter()
        if due >= begun + load.seconds:
            break
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        try:
            connection = connection or await _Connection.open(load.port)
            async with asyncio.timeout(ANSWER_S):
                status, head = await connection.ask(load.requests[number % len(load.requests)])
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            status, head = BROKEN, b"\r\nconnection: close"
        outcome.times.setdefault(status, []).append(time.perf_counter() - due)
        if connection is not None and CLOSES.search(head):
            connection.writer.close()
            connection = None
        told = RETRY_AFTER.search(head)
        if told and load.obeys:
            await asyncio.sleep(int(told[1]))
    if connection is not None:
        connection.writer.close()


@dataclass(frozen=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, port: int) -> _Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and head of the answer; its body is read and forgotten."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        if length is not None:
            await self.reader.readexactly(int(length[1]))
        elif CHUNKED.search(head):
            await self.reader.readuntil(b"\r\n0\r\n\r\n")  # stands in no JSON
        else:
            raise OSError("the answer does not say where it ends")
        return int(head[9:12]), head
