"""What went wrong, told to the client: one exception, one JSON shape for every error of the service."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from training.model.picture.header import PictureError

OVERLOADED = "overloaded"
PICTURE_STATUS = {
    "not_an_image": 415,
    "unsupported_format": 415,
    "too_many_pixels": 413,
}  # of a PictureError's code; 422 for the others


class Fault(Exception):
    """A request that is not answered: HTTP status, a code for programs, a message and a hint for people."""

    def __init__(self, status: int, code: str, message: str, hint: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.hint = hint
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    @classmethod
    def of_picture(cls, error: PictureError) -> Fault:
        return cls(PICTURE_STATUS.get(error.code, 422), error.code, str(error), error.hint)

    @classmethod
    def of_status(cls, status: int, timeout: float) -> Fault:
        """For an error that Starlette or BentoML answers with a body of its own."""
        known = {
            400: ("invalid_request", "the request cannot be understood", "see /docs for what there is"),
            404: ("not_found", "there is nothing at this address", "see /docs for what there is"),
            405: ("method_not_allowed", "this address does not take that method", "see /docs for the method"),
            415: ("wrong_content_type", "this content type is not taken", "see /docs for those that are"),
            416: ("wrong_range", "the file has no such bytes", "send another Range, or none"),
            503: ("not_ready", "the model does not answer", "try again in a moment"),
            504: ("timeout", f"there was no answer within {timeout:g} s", "try again, or send fewer pictures"),
        }
        fallback = ("internal", "the service failed", "try again; the request id finds the cause in the server's log")
        retry = {"Retry_After": "1"} if status in (503, 504) else {}
        return cls(status, *known.get(status, fallback), **retry)

    def body(self, request_id: str) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": str(self), "hint": self.hint}, "request_id": request_id}

    def response(self, request_id: str) -> Response:
        return Response(orjson.dumps(self.body(request_id)), self.status, self.headers, media_type="application/json")

    def answer(self, request: Request) -> Response:
        """The response to a request that passed the edge, which counts the error by its code."""
        request.state.fault = self.code
        return self.response(request.state.request_id)


def disconnected() -> Fault:
    return Fault(400, "disconnected", "the connection ended before the answer", "try again")


def overloaded(full: str, **headers: str) -> Fault:
    """`full` says what is."""
    return Fault(503, OVERLOADED, full, "try again in a second", Retry_After="1", **headers)
