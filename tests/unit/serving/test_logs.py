"""What the server prints: one JSON object a line, with the request it is about."""

from __future__ import annotations

import json
import logging
import sys

from training.serving.bento.logs import REQUEST_ID, JsonFormatter, TextFormatter


def record(message: str, *values: object, failed: bool = False) -> logging.LogRecord:
    info = sys.exc_info() if failed else None
    return logging.LogRecord("bentoml.serve", logging.ERROR, __file__, 1, message, values, info)


def test_json_lines_carry_the_request_id_only_within_a_request() -> None:
    outside = json.loads(JsonFormatter().format(record("it %s", "works")))
    assert outside.keys() == {"time", "level", "logger", "message"}
    assert (outside["level"], outside["logger"], outside["message"]) == ("ERROR", "bentoml.serve", "it works")
    token = REQUEST_ID.set("abc")
    try:
        assert json.loads(JsonFormatter().format(record("x")))["request_id"] == "abc"
        assert TextFormatter("%(message)s").format(record("x")) == "x (request_id=abc)"
    finally:
        REQUEST_ID.reset(token)
    assert TextFormatter("%(message)s").format(record("x")) == "x"


def test_an_exception_stays_within_its_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        line = JsonFormatter().format(record("failed", failed=True))
    assert "\n" not in line
    assert json.loads(line)["exception"].endswith("ValueError: two\nlines")
