"""Threads that work for the event loop, and tell it of results together.

With a plain ThreadPoolExecutor throughput is 0.95 times at 8 clients, 0.91 at 32, and a request takes 1.06 to 1.09
times the CPU (tests/load/results/ablation.md).

`loop.run_in_executor` costs the event loop 10 to 30 us a call: two futures, locks, a chain of callbacks. It would be
called twice a picture, and holds the interpreter's lock meanwhile. Here a call is a future and a place in a queue, and
a thread that has more brief work to do does that before it wakes the loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar, cast

TOGETHER = 8  # results of brief work at most that wait to be told
_T = TypeVar("_T")


class _Job(NamedTuple):
    future: asyncio.Future[Any]
    brief: bool
    work: Callable[..., Any]
    arguments: tuple[Any, ...]


class Threads:
    """`number` threads for the event loop that calls `run`, always the same one."""

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self._loop: asyncio.AbstractEventLoop | None = None
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._done: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}_{each}", daemon=True) for each in range(number)
        ]
        for thread in self._threads:
            thread.start()

    def run(self, work: Callable[..., _T], *arguments: Any, brief: bool = False) -> asyncio.Future[_T]:
        """Have a thread call `work(*arguments)`; what comes of it is in the future, if it is `brief` a little later."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        future = self._loop.create_future()
        self._jobs.put(_Job(future, brief, work, arguments))
        return cast("asyncio.Future[_T]", future)

    def close(self) -> None:
        """Do what was asked for so far, and end the threads."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        job = self._jobs.get()
        while job is not None:
            self._do(job)
            was_brief, job = job.brief, None  # the pictures in it are not kept while the thread waits
            try:
                job = self._jobs.get_nowait()
            except Empty:
                self._wake()
                job = self._jobs.get()
                continue
            # What was brief is told with what follows, unless another thread could make use of it meanwhile.
            waits = was_brief and job is not None and (job.brief or self.number == 1)
            if not waits or len(self._done) >= TOGETHER:
                self._wake()

    def _do(self, job: _Job) -> None:
        future, _, work, arguments = job
        if future.cancelled():  # given up while it waited
            return
        try:
            self._done.append((future, work(*arguments), None))
        except StopIteration as error:  # no future takes it
            self._done.append((future, None, RuntimeError(f"the work raised {error!r}")))
        except BaseException as error:  # whoever awaits the future gets it
            self._done.append((future, None, error))
        finally:
            del job, future, work, arguments  # the error knows this frame: what it held would stay until a collection

    def _wake(self) -> None:
        if self._done and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        while self._done:
            future, result, error = self._done.popleft()
            if future.done():  # nobody waits any more
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
