"""POST /feedback: JSON in, JSON out, around the store of feedback."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from anyio import to_thread
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from training.serving.api.answers import FeedbackRequest
from training.serving.api.requests import Reader
from training.serving.errors import Fault
from training.serving.records.deferred import EVERY_S
from training.serving.records.feedback_store import FeedbackStore

MAX_BYTES = 10_000  # of a body


async def answer(request: Request, store: FeedbackStore, reader: Reader) -> Response:
    """The response to a request."""
    try:
        said = _said(request, await reader.bodies.receive(request, MAX_BYTES))
        return Response(orjson.dumps(await _recorded(store, said)), media_type="application/json")
    except Fault as fault:
        return fault.answer(request)
    finally:
        reader.leave(request)


async def _recorded(store: FeedbackStore, said: FeedbackRequest) -> dict[str, Any]:
    try:
        return await to_thread.run_sync(store.record, said.request_id, said.label)
    except Fault as fault:
        if fault.code != "unknown_request":
            raise
    await asyncio.sleep(2.5 * EVERY_S)  # another worker may be about to write it down
    return await to_thread.run_sync(store.record, said.request_id, said.label)


def _said(request: Request, body: bytes) -> FeedbackRequest:
    media = request.headers.get("content-type", "")
    if media.split(";")[0].strip().lower() != "application/json":
        raise Fault(415, "wrong_content_type", f"Content-Type is {media[:100]!r}", "send application/json")
    try:
        return FeedbackRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        hint = 'send {"request_id": "...", "label": "..."}'
        raise Fault(422, "wrong_feedback", f"{where}: {first['msg']}", hint) from None
