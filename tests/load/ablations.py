"""The service without one piece of its machinery, for `bench ablation`. WITHOUT names the piece in the environment."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import uvloop
from bentoml._internal.marshal.dispatcher import CorkDispatcher, NonBlockSema

import service
from service import PictureClassifier as PictureClassifier
from training.serving import threads
from training.serving.bento import batching, direct
from training.serving.connections import accepting, protocol, shared_counters

TIMEOUT_MS = 30_000


def sharing() -> None:
    """Processes that share nothing: the system hands out connections, each process counts for itself."""
    own = shared_counters.SharedCounters(Path(tempfile.mkdtemp()) / "counters", 1)
    shared_counters.shared_counters = lambda: own  # type: ignore[assignment]
    accepting.SharingLoop.create_server = uvloop.Loop.create_server  # type: ignore[method-assign,assignment]


def own_threads() -> None:
    """`loop.run_in_executor` on a plain ThreadPoolExecutor."""

    def start(self: Any, number: int, name: str) -> None:
        self.number, self.pool = number, ThreadPoolExecutor(number, name)

    def run(self: Any, work: Callable[..., Any], *arguments: Any, brief: bool = False) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self.pool, work, *arguments)

    threads.Threads.__init__ = start  # type: ignore[method-assign]
    threads.Threads.run = run  # type: ignore[method-assign]
    threads.Threads.close = lambda self: self.pool.shutdown()  # type: ignore[method-assign,attr-defined]


def direct_way() -> None:
    """BentoML's own routing in front of the batchable APIs."""

    async def everything_to_bentoml(self: Any, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)

    direct.Direct.__call__ = everything_to_bentoml  # type: ignore[method-assign]


def dispatcher() -> None:
    """BentoML's own dispatcher, which looks for a batch every millisecond, with as many batches at once."""

    def start(self: Any, batches: int, max_batch: int, fallback: Any) -> None:
        sema = NonBlockSema(batches)
        CorkDispatcher.__init__(self, TIMEOUT_MS, max_batch, shared_sema=sema, fallback=fallback, get_batch_size=len)

    for name in ("split_job", "controller", "inbound_call", "outbound_call"):
        delattr(batching.Dispatcher, name)
    batching.Dispatcher.__init__ = start  # type: ignore[method-assign]


def overload_pause() -> None:
    """A client that was refused and comes back at once is read at once."""
    protocol.OVERLOAD_PAUSE_S = 0.0


def memory_settings() -> None:
    """glibc's malloc as it comes, without huge pages."""
    cast(Any, service.PictureClassifier).envs.clear()


WITHOUT: dict[str, Callable[[], None]] = {
    made.__name__: made for made in (sharing, own_threads, direct_way, dispatcher, overload_pause, memory_settings)
}
if name := os.environ.get("WITHOUT"):
    WITHOUT[name]()
