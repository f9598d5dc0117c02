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
from starlette.requests import ClientDisconnect, Request

from training.model import preprocess
from training.model.preprocess import Limits, PictureError, Preprocessing
from training.params import Serve
from training.serving import settings as serve_settings
from training.serving.api.multipart import Part, parse
from training.serving.connections.shared_counters import Count, SharedCounters
from training.serving.errors import Fault, overloaded
from training.serving.threads import Threads
from training.serving.uploads import Decoded, RejectedUpload, Upload

if TYPE_CHECKING:
    from training.serving.records.watch import Watch

FORM = "multipart/form-data"
FORM_BYTES = 16 * 1024  # what a form may have beside its picture
current_service = bentoml.get_current_service  # BentoML looks it up by name at each access
SLOW_BYTES = 1_000_000  # of a picture of few pixels: something else is in it, and may take long to read over
SLOW_PIXELS = 500_000  # above it decoding takes longer than the network, which must not queue up behind it
SLOW_PIXELS_JPEG = 3_000_000  # these are decoded at a smaller scale
LARGE_PIXELS = 4_000_000  # above it pictures are decoded one at a time by all workers, for the sake of memory
LARGE_PIXELS_JPEG = 25_000_000


class SlowDecode(NamedTuple):
    """A picture that takes long: what goes on with it, and where."""

    threads: Threads
    decode: Callable[[], Decoded | SlowDecode]


class Reader:
    """Reads pictures out of requests, bounded in bytes, pixels, time and number; decodes in `threads`,
    and what takes long in threads of its own."""

    def __init__(
        self, settings: Serve, how: Preprocessing, watch: Watch, threads: Threads, counters: SharedCounters
    ) -> None:
        self.settings = settings
        self.watch = watch
        self.how = how
        self.limits: Limits = serve_settings.limits(settings)
        self._counters = counters
        # Were one worker to take more than its part of those that may wait, their turn would come late.
        self._share = max(math.ceil(settings.max_waiting / counters.workers), settings.max_pictures)
        self._threads = threads
        self._slow = Threads(threads.number, "decode-slow")
        self._large = Threads(1, "decode-large")

    async def one(self, request: Request) -> Upload:
        """The picture of a request: the form's field `image`, or the body itself under an image content type."""
        abstain = flag(request, "abstain", True)
        media = request.headers.get("content-type", "")
        body = await self._body(request, self.settings.max_bytes + (FORM_BYTES if _is_form(media) else 0))
        self._enter(request, 1)

        file = await self._decoded(lambda: _only_file(parse(body, media, 1), "image") if _is_form(media) else body)
        return Upload(file, request.state.request_id, abstain, request.state.received, time.perf_counter())

    async def many(self, request: Request) -> list[Upload | RejectedUpload]:
        """The pictures of a form's fields `images`, in order; what is wrong with one stands in its place."""
        abstain = flag(request, "abstain", True)
        media = request.headers.get("content-type", "")
        if not _is_form(media):
            raise Fault(415, "wrong_content_type", f"Content-Type is {media!r}", f"send {FORM} with fields 'images'")
        body = await self._body(request, self.settings.max_batch_bytes)
        parts = await self._threads.run(lambda: _files(parse(body, media, self.settings.max_pictures), "images"))
        if len(parts) > self.settings.max_pictures:
            hint = f"send at most {self.settings.max_pictures}"
            raise Fault(422, "too_many_pictures", f"{len(parts)} pictures in one request", hint)
        self._enter(request, len(parts))

        return list(await asyncio.gather(*(self._item(request, abstain, *item) for item in enumerate(parts))))

    def leave(self, request: Request) -> None:
        """The request is over: its pictures wait no longer, its bytes are not held any more."""
        self._counters.add(Count.PICTURES, -getattr(request.state, "pictures", 0))
        self._counters.add(Count.BYTES, -getattr(request.state, "bytes", 0))

    def close(self) -> None:
        """End the threads for pictures that take long."""
        self._slow.close()
        self._large.close()

    @property
    def waiting(self) -> int:
        """Pictures that the workers have accepted and not yet answered."""
        return self._counters.all(Count.PICTURES)

    def _is_full(self, pictures: int) -> bool:
        """Whether so many more may not wait."""
        own = self._counters.mine(Count.PICTURES) + pictures
        return own > self._share or self.waiting + pictures > self.settings.max_waiting

    def _enter(self, request: Request, pictures: int) -> None:
        if self._is_full(pictures):
            raise overloaded(self.settings.max_waiting)
        self._counters.add(Count.PICTURES, pictures)
        request.state.pictures = pictures

    async def receive(self, request: Request, limit: int) -> bytes:
        """The body of a request, at most `limit` bytes; `leave` must follow."""
        declared = request.headers.get("content-length")
        if declared is not None and int(declared) > limit:
            raise _too_many_bytes(limit)
        try:
            async with asyncio.timeout(self.settings.upload_timeout):
                return await self._chunks(request, limit)
        except TimeoutError:
            message = f"the body did not arrive within {self.settings.upload_timeout:g} s"
            raise Fault(408, "slow_upload", message, "send less, or faster", Connection="close") from None
        except ClientDisconnect:
            raise Fault(400, "disconnected", "the connection ended before the body did", "try again") from None

    async def _body(self, request: Request, limit: int) -> bytes:
        _check_media(request.headers.get("content-type", ""))
        if self._is_full(1):
            raise overloaded(self.settings.max_waiting)
        return await self.receive(request, limit)

    async def _chunks(self, request: Request, limit: int) -> bytes:
        chunks: list[bytes] = []
        request.state.bytes = 0
        async for chunk in request.stream():
            chunks.append(chunk)
            request.state.bytes += len(chunk)
            self._counters.add(Count.BYTES, len(chunk))
            if request.state.bytes > limit:
                raise _too_many_bytes(limit, Connection="close")
            if self._counters.all(Count.BYTES) > 2 * self.settings.max_batch_bytes:
                raise overloaded(self.settings.max_waiting)
        return b"".join(chunks)

    async def _item(self, request: Request, abstain: bool, index: int, part: Part) -> Upload | RejectedUpload:
        request_id = f"{request.state.request_id}.{index}"
        try:
            decoded = await self._decoded(lambda: bytes(part.data))
        except Fault as fault:
            return RejectedUpload(fault, request_id)
        return Upload(decoded, request_id, abstain, request.state.received, time.perf_counter())

    async def _decoded(self, data: Callable[[], bytes]) -> Decoded:
        """What the network sees of a picture, and its figures; Fault when it is not one."""
        try:
            done = await self._threads.run(lambda: self._decode_or_open(data()), brief=True)
            while isinstance(done, SlowDecode):
                done = await done.threads.run(done.decode)
            return done
        except PictureError as error:
            raise Fault.of_picture(error) from None

    def _decode_or_open(self, data: bytes) -> Decoded | SlowDecode:
        begun = time.perf_counter()
        if len(data) > self.settings.max_bytes:
            raise _too_many_bytes(self.settings.max_bytes)
        if len(data) > SLOW_BYTES:
            return SlowDecode(self._slow, lambda: self._open(data, time.perf_counter()))
        return self._open(data, begun)

    def _open(self, data: bytes, begun: float) -> Decoded | SlowDecode:
        image = preprocess.open_checked(data, self.limits)
        pixels, whole = preprocess.work(image, data), image.format != "JPEG"
        if whole and pixels > self.settings.max_pixels_whole:
            hint = f"send at most {self.settings.max_pixels_whole} pixels, or a JPEG"
            raise Fault(413, "too_many_pixels", f"the picture has {image.width} x {image.height} pixels", hint)
        if pixels > (SLOW_PIXELS if whole else SLOW_PIXELS_JPEG):
            opened = time.perf_counter() - begun
            if pixels > (LARGE_PIXELS if whole else LARGE_PIXELS_JPEG):
                return SlowDecode(self._large, lambda: self._decode_large(image, data, opened))
            return SlowDecode(self._slow, lambda: self._decode(image, data, time.perf_counter() - opened))
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
    return choice(request, name, ("true", "false") if default else ("false", "true")) == "true"


def choice(request: Request, name: str, allowed: Sequence[str]) -> str:
    """The query parameter `name`, by default the first of `allowed`; Fault 422 for anything else."""
    if not request.scope["query_string"]:
        return allowed[0]
    value = request.query_params.get(name, allowed[0])
    if value not in allowed:
        hint = f"send {name}={' or '.join(allowed)}"
        raise Fault(422, "wrong_parameter", f"{name} is {value[:50]!r}", hint)
    return value


def _is_form(media: str) -> bool:
    return media.split(";")[0].strip().lower() == FORM


def _check_media(media: str) -> None:
    kind = media.split(";")[0].strip().lower()
    if kind != FORM and not kind.startswith("image/"):
        hint = f"send {FORM} with a file field, or the bytes of a picture as the body under image/jpeg, image/png..."
        raise Fault(415, "wrong_content_type", f"Content-Type is {media[:100]!r}", hint)


def _files(parts: list[Part], name: str) -> list[Part]:
    """The file fields called `name`; Fault 422 when there is none, or when one holds text."""
    found = [part for part in parts if part.name == name]
    if not found:
        seen = ", ".join(sorted({repr(part.name[:50]) for part in parts})) or "no field"
        raise Fault(422, "missing_field", f"the form has no field {name!r}, but {seen}", f"name the field {name!r}")
    if any(part.filename is None for part in found):
        hint = "send the file itself with a file name; an address is never fetched"
        raise Fault(422, "not_a_file", f"the field {name!r} holds text, not a file", hint)
    return found


def _only_file(parts: list[Part], name: str) -> bytes:
    found = _files(parts, name)
    if len(found) > 1:
        hint = "send one picture, or use /predict_batch"
        raise Fault(422, "repeated_field", f"the form has {len(found)} fields {name!r}", hint)
    return bytes(found[0].data)


def _too_many_bytes(limit: int, **headers: str) -> Fault:
    return Fault(413, "too_many_bytes", f"more than {limit} bytes", "send less", **headers)
