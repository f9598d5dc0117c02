"""From the bytes a client sends to a picture that may join a batch: read, checked, decoded; or a Fault.

Nothing here fetches a URL or unpickles (BentoML's own parsing of a file field does the former, CVE-2025-54381).
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import bentoml
from PIL.Image import Image
from pydantic import Field
from starlette.requests import Request

from training.common import units
from training.model import preprocess
from training.model.picture import header
from training.model.picture.header import Limits, PictureError
from training.model.preprocess import Preprocessing
from training.params import Serve
from training.serving import settings as serve_settings
from training.serving.api import contents
from training.serving.api.bodies import Bodies, too_many_bytes
from training.serving.api.places import Places
from training.serving.connections.shared_counters import Count, SharedCounters
from training.serving.errors import Fault, overloaded
from training.serving.threads import Threads
from training.serving.uploads import Decoded, RejectedUpload, Upload

if TYPE_CHECKING:
    from training.serving.records.watch import Watch

current_service = bentoml.get_current_service  # BentoML looks it up by name at each access
SLOW_BYTES = 1_000_000  # of a picture of few pixels: something else is in it, and may take long to read over
SLOW_PIXELS = 500_000  # above it decoding takes longer than the network, which must not queue up behind it
SLOW_PIXELS_JPEG = 3_000_000  # these are decoded at a smaller scale
LARGE_PIXELS = 4_000_000  # above it pictures are decoded one at a time by all workers, for the sake of memory
LARGE_PIXELS_JPEG = 25_000_000
PLACE_PIXELS = 1_000_000  # of work that may wait for each picture that may: by 128 a few seconds of one core


class SlowDecode(NamedTuple):
    """A picture that takes long: what goes on with it, where, and the pixels of work it is taken for."""

    threads: Threads
    decode: Callable[[], Decoded | SlowDecode]
    work: int


class Reader:
    """Reads pictures out of requests, bounded in bytes, pixels, time and number; decodes in `threads`,
    and what takes long in threads of its own.

    A picture holds a place until its answer. One that takes long, as its header tells, gives it up for places among its
    like, as many as it has work: pictures that are quick to answer never wait behind those.
    """

    def __init__(
        self, settings: Serve, how: Preprocessing, watch: Watch, threads: Threads, counters: SharedCounters
    ) -> None:
        self.settings = settings
        self.watch = watch
        self.how = how
        self.limits: Limits = serve_settings.limits(settings)
        self._counters = counters
        # Were one worker to take more than its part of those that may wait, their turn would come late.
        share = max(math.ceil(settings.max_waiting / counters.workers), settings.max_pictures)
        self._quick = Places(counters, Count.PICTURES, settings.max_waiting, share)
        slow = settings.max_waiting * PLACE_PIXELS
        self._long = Places(counters, Count.SLOW_PIXELS, slow, slow)
        self.bodies = Bodies(settings, counters.workers)
        self._threads = threads
        self._slow = Threads(threads.number, "decode-slow")
        self._large = Threads(1, "decode-large")

    async def one(self, request: Request) -> Upload:
        """The picture of a request: the field `image` of a form or of JSON, or the body itself."""
        abstain = flag(request, "abstain", True)
        media = request.headers.get("content-type", "")
        body = await self._body(request, contents.most_bytes(media, self.settings))
        self._enter(request, 1)

        opened = await self._opened(lambda: contents.only_picture(body, media, self.settings.max_bytes))
        [decoded] = await self._decoded(request, [opened]) if isinstance(opened, SlowDecode) else [opened]
        if isinstance(decoded, Fault):
            raise decoded
        return _upload(request, decoded, request.state.request_id, abstain)

    async def many(self, request: Request) -> list[Upload | RejectedUpload]:
        """The pictures `images` of a form or of JSON, in order; what is wrong with one stands in its place."""
        abstain = flag(request, "abstain", True)
        media = request.headers.get("content-type", "")
        body = await self._body(request, self.settings.max_batch_bytes)
        parts = await self._threads.run(lambda: contents.pictures(body, media, self.settings))
        if len(parts) > self.settings.max_pictures:
            hint = f"send at most {self.settings.max_pictures}"
            raise Fault(422, "too_many_pictures", f"{len(parts)} pictures in one request", hint)
        self._enter(request, len(parts))

        opened = await asyncio.gather(*(self._opened(part) for part in parts))
        uploads: list[Upload | RejectedUpload] = []
        for index, each in enumerate(await self._decoded(request, opened)):
            request_id = f"{request.state.request_id}.{index}"
            if isinstance(each, Fault):
                uploads.append(RejectedUpload(each, request_id))
            else:
                uploads.append(_upload(request, each, request_id, abstain))
        return uploads

    def leave(self, request: Request) -> None:
        """The request is over: its pictures wait no longer, its bytes are not held any more."""
        self.bodies.give_back(request)
        if getattr(request.state, "pictures", 0):
            self._quick.give_back(request.state.client, request.state.pictures)
        if getattr(request.state, "slow", 0):
            self._long.give_back(request.state.client, request.state.slow)

    def close(self) -> None:
        """End the threads for pictures that take long."""
        self._slow.close()
        self._large.close()

    @property
    def waiting(self) -> int:
        """Pictures that the workers have accepted and not yet answered, without those that take long to decode."""
        return self._quick.taken

    def _enter(self, request: Request, pictures: int) -> None:
        if not self._quick.has_room(request.state.client, pictures):
            raise overloaded(f"{self.waiting} pictures are waiting already")
        self._quick.take(request.state.client, pictures)
        request.state.pictures = pictures

    def _enter_slow(self, request: Request, pictures: int, work: int) -> None:
        """So many pictures of the request take long: they wait among their like."""
        client, before = request.state.client, getattr(request.state, "slow", 0)
        if not self._long.has_room(client, work, before):
            raise overloaded(f"{units.pixels(self._long.taken)} that are slow to decode are waiting already")
        self._long.take(client, work)
        request.state.slow = before + work
        self._quick.give_back(client, pictures)
        request.state.pictures -= pictures

    async def _body(self, request: Request, limit: int) -> bytes:
        contents.check_media(request.headers.get("content-type", ""))
        if not self._quick.has_room(request.state.client, 1):
            raise overloaded(f"{self.waiting} pictures are waiting already")
        return await self.bodies.receive(request, limit)

    async def _opened(self, data: Callable[[], bytes]) -> Decoded | SlowDecode | Fault:
        """What the network sees of a picture, unless that takes long; or what is wrong with it."""
        try:
            return await self._threads.run(lambda: self._decode_or_open(data()), brief=True)
        except PictureError as error:
            return Fault.of_picture(error)
        except Fault as fault:
            return fault

    async def _decoded(self, request: Request, opened: Sequence[Decoded | SlowDecode | Fault]) -> list[Decoded | Fault]:
        """The pictures of a request when those that take long are decoded too."""
        slow = [each.work for each in opened if isinstance(each, SlowDecode)]
        if slow:
            self._enter_slow(request, len(slow), sum(slow))
        return await asyncio.gather(*(self._finished(request, each) for each in opened))

    async def _finished(self, request: Request, done: Decoded | SlowDecode | Fault) -> Decoded | Fault:
        try:
            while isinstance(done, SlowDecode):
                before, done = done.work, await done.threads.run(done.decode)
                if isinstance(done, SlowDecode) and done.work > before:
                    self._enter_slow(request, 0, done.work - before)
        except PictureError as error:
            return Fault.of_picture(error)
        except Fault as fault:
            return fault
        return done

    def _decode_or_open(self, data: bytes) -> Decoded | SlowDecode:
        begun = time.perf_counter()
        if len(data) > self.settings.max_bytes:
            raise too_many_bytes(self.settings.max_bytes)
        if len(data) > SLOW_BYTES:
            return SlowDecode(self._slow, lambda: self._open(data, time.perf_counter()), len(data))
        return self._open(data, begun)

    def _open(self, data: bytes, begun: float) -> Decoded | SlowDecode:
        image = header.open_checked(data, self.limits)
        pixels, whole = header.work(image, data), image.format != "JPEG"
        if pixels > (SLOW_PIXELS if whole else SLOW_PIXELS_JPEG):
            opened = time.perf_counter() - begun
            work = max(len(data), pixels if whole else pixels * SLOW_PIXELS // SLOW_PIXELS_JPEG)
            if pixels > (LARGE_PIXELS if whole else LARGE_PIXELS_JPEG):
                return SlowDecode(self._large, lambda: self._decode_large(image, data, opened), work)
            return SlowDecode(self._slow, lambda: self._decode(image, data, time.perf_counter() - opened), work)
        return self._decode(image, data, begun)

    def _decode_large(self, image: Image, data: bytes, opened: float) -> Decoded:
        with self._counters.one_worker_at_a_time():
            return self._decode(image, data, time.perf_counter() - opened)

    def _decode(self, image: Image, data: bytes, begun: float) -> Decoded:
        size, kind = image.size, image.format
        pixels = preprocess.shrink(image, self.how, data)
        width, height = preprocess.upright_size(size, image)
        digest = hashlib.sha256(data).hexdigest()
        facts = {"picture_sha256": digest, "bytes": len(data), "format": kind, "width": width, "height": height}
        return Decoded(pixels, facts, time.perf_counter() - begun, data if self.watch.chosen() else None)


class OnePicture(bentoml.IODescriptor):
    """What /predict takes. A list of one, because BentoML joins the lists of several requests to a batch."""

    image: Image = Field(description="one picture file")

    @classmethod
    async def from_http_request(cls, request: Request, _serde: Any) -> Self:
        made: Self = cls.model_construct(image=[await _reader().one(request)])
        return made


class ManyPictures(bentoml.IODescriptor):
    """What /predict_batch takes."""

    images: list[Image] = Field(description="picture files")

    @classmethod
    async def from_http_request(cls, request: Request, _serde: Any) -> Self:
        made: Self = cls.model_construct(images=await _reader().many(request))
        return made


def _reader() -> Reader:
    reader: Reader = current_service().reader
    return reader


def flag(request: Request, name: str, default: bool) -> bool:
    """The query parameter `name` as true or false; Fault 422 for anything else."""
    if not request.scope["query_string"]:
        return default
    value = request.query_params.get(name, str(default).lower())
    if value not in ("true", "false"):
        raise Fault(422, "wrong_parameter", f"{name} is {value[:50]!r}", f"send {name}=true or {name}=false")
    return value == "true"


def _upload(request: Request, decoded: Decoded, request_id: str, abstain: bool) -> Upload:
    state = request.state
    return Upload(decoded, request_id, abstain, state.received, time.perf_counter(), state.timing)
