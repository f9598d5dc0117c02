"""What the server prints, with the id of the request it is about: text, or one JSON object a line."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

import orjson
from bentoml._internal import log as bentoml_log
from opentelemetry import trace

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)


class TextFormatter(logging.Formatter):
    """BentoML's lines, with the request id behind the message."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        request_id = REQUEST_ID.get()
        return super().formatMessage(record) + (f" (request_id={request_id})" if request_id else "")


class JsonFormatter(logging.Formatter):
    """time, level, logger, message; request_id and trace_id within a request; exception with its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := REQUEST_ID.get():
            entry["request_id"] = request_id
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            entry["trace_id"] = trace.format_trace_id(span.trace_id)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(entry, default=str).decode()


def configure(kind: Literal["text", "json"]) -> None:
    """Have BentoML's processes print that: those that set up their logging later, and this one if it has already."""
    formatter = JsonFormatter if kind == "json" else TextFormatter
    bentoml_log.SERVER_LOGGING_CONFIG["formatters"]["traced"]["()"] = formatter
    for logger in bentoml_log.SERVER_LOGGING_CONFIG["loggers"].values():
        logger["propagate"] = False  # each has a handler: that of the root would print its lines again
    if logging.getLogger("uvicorn.error").handlers:  # the worker has, before it loads the service
        bentoml_log.configure_server_logging()  # type: ignore[no-untyped-call]
