"""Bodies of requests on their way into memory: bounded in time, each and together in bytes."""

from __future__ import annotations

import asyncio
import time

from starlette.requests import ClientDisconnect, Request

from training.common import units
from training.params import Serve
from training.serving.errors import Fault, disconnected, overloaded

FREE = 64 * 1024  # bytes of a body that need no room: the server itself reads as many ahead
STEP = 64 * 1024  # bytes that must come for a body to count as moving
STALLED_S = 0.5  # without that many: the body is cut where others need its memory
PATIENCE_S = 2.0  # that a body waits for the memory of others
LOOK_S = 0.02  # between looks whether there is room


class _Upload:
    """A body that is coming; `moved` is when its last step came (time.monotonic)."""

    def __init__(self, clock: asyncio.Timeout) -> None:
        self.clock = clock
        self.held = self.step = 0
        self.moved = time.monotonic()
        self.waits = self.cut = False

    def took(self, count: int) -> None:
        self.held += count
        if self.held - self.step >= STEP:
            self.step, self.moved = self.held, time.monotonic()


class Bodies:
    """Those of one worker."""

    def __init__(self, settings: Serve, workers: int) -> None:
        self._seconds = settings.upload_timeout
        self._limit = max(2 * settings.max_batch_bytes // workers, settings.max_batch_bytes)
        self._held = 0  # also of bodies that came whole and are worked on
        self._coming: set[_Upload] = set()

    async def receive(self, request: Request, limit: int) -> bytes:
        """The body of a request, at most `limit` bytes; `give_back` must follow."""
        declared = request.headers.get("content-length")
        if declared is not None and int(declared) > limit:
            raise too_many_bytes(limit)
        try:
            async with asyncio.timeout(self._seconds) as clock:
                upload = _Upload(clock)
                return await self._chunks(request, upload, limit)
        except TimeoutError:
            message = f"the body did not arrive within {self._seconds:g} s"
            if upload.cut:
                message = "the body stood still, and others need the memory that it held"
            raise Fault(408, "slow_upload", message, "send less, or faster", Connection="close") from None
        except ClientDisconnect:
            raise disconnected() from None

    def give_back(self, request: Request) -> None:
        """The request is over: its bytes are not held any more."""
        self._held -= getattr(request.state, "bytes", 0)

    async def _chunks(self, request: Request, upload: _Upload, limit: int) -> bytes:
        chunks: list[bytes] = []
        self._coming.add(upload)
        try:
            async for chunk in request.stream():
                chunks.append(chunk)
                upload.took(len(chunk))
                self._held += len(chunk)
                request.state.bytes = upload.held
                if upload.held > limit:
                    raise too_many_bytes(limit, Connection="close")
                if self._held > self._limit and upload.held > FREE:
                    await self._room(upload)
        finally:
            self._coming.discard(upload)
        return b"".join(chunks)

    async def _room(self, upload: _Upload) -> None:
        """Wait, with this body not read on, until there is room; who holds memory and does not move is cut."""
        upload.waits, deadline = True, time.monotonic() + PATIENCE_S
        while self._held > self._limit:
            now = time.monotonic()
            if now > deadline:
                raise overloaded(f"bodies of {units.size(self._held)} are held in memory already", Connection="close")
            stalled = [each for each in self._coming if not each.waits and now - each.moved > STALLED_S]
            if stalled:
                worst = min(stalled, key=lambda each: each.moved)
                worst.cut = worst.waits = True
                worst.clock.reschedule(0)
            await asyncio.sleep(LOOK_S if not stalled else 0)
        upload.waits, upload.moved = False, time.monotonic()


def too_many_bytes(limit: int, **headers: str) -> Fault:
    return Fault(413, "too_many_bytes", f"more than {units.size(limit)}", "send less", **headers)
