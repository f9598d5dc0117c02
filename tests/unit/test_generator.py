"""The load generator against a small local server: it sends what it should, and counts what came back."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.load.generator import BROKEN, Load, Outcome, send
from tests.service.server import free_port

pytestmark = pytest.mark.slow

SECONDS = 0.5
SLOW_S = 0.3


class Target:
    """Answers POST /STATUS with that status; /slow late, /chunked in chunks, /gone not at all; counts in `answers`."""

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.connections = 0
        target, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                with lock:
                    target.connections += 1

            def do_POST(self) -> None:
                assert self.rfile.read(int(self.headers["Content-Length"])) == b"a picture"
                with lock:
                    target.answers[self.path] += 1
                if self.path == "/gone":
                    self.close_connection = True
                elif self.path == "/chunked":
                    self.start(200, "Transfer-Encoding", "chunked")
                    self.wfile.write(b"8\r\n[1, 2, 3\r\n1\r\n]\r\n0\r\n\r\n")
                else:
                    time.sleep(SLOW_S if self.path == "/slow" else 0)
                    self.start(200 if self.path == "/slow" else int(self.path[1:]), "Content-Length", "2")
                    self.wfile.write(b"{}")

            def start(self, status: int, header: str, value: str) -> None:
                self.send_response(status)
                self.send_header(header, value)
                if status == 503:
                    self.send_header("Retry-After", "1")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def load(self, *paths: str, concurrency: int = 4, **how: Any) -> Outcome:
        """What comes of requests to the paths, in turn."""
        requests = tuple(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na picture" for path in paths)
        return send(Load(self.server.server_port, tuple(map(str.encode, requests)), concurrency, SECONDS, **how))


@pytest.fixture
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_every_answer_is_counted_by_its_status(target: Target) -> None:
    outcome = target.load("/200", "/415", "/chunked", "/500")
    sent = target.answers
    assert outcome.statuses == {200: sent["/200"] + sent["/chunked"], 415: sent["/415"], 500: sent["/500"]}
    assert outcome.answered == outcome.statuses[200] > 10
    assert outcome.errors == sent["/415"] + sent["/500"]
    assert max(sent.values()) - min(sent.values()) <= 1  # in turn
    assert target.connections == 4  # kept
    assert outcome.seconds >= SECONDS
    assert outcome.throughput == outcome.answered / outcome.seconds
    assert 0 < outcome.milliseconds(0.5) <= outcome.milliseconds(0.99) < 1000 * outcome.seconds
    assert outcome.cpu_seconds > 0


def test_a_connection_without_an_answer_is_an_error_and_opened_anew(target: Target) -> None:
    outcome = target.load("/200", "/gone")
    assert outcome.statuses == {200: target.answers["/200"], BROKEN: target.answers["/gone"]}
    assert outcome.errors == target.answers["/gone"] > 4
    assert target.connections > 4


def test_nobody_there_is_an_error() -> None:
    outcome = send(Load(free_port(), (b"GET / HTTP/1.1\r\n\r\n",), 4, SECONDS, rate=10.0))
    assert outcome.statuses == {BROKEN: 5}
    assert math.isinf(outcome.milliseconds(0.5))


def test_retry_after_is_obeyed_if_it_is_to_be(target: Target) -> None:
    assert target.load("/503", concurrency=3).statuses == {503: 3}  # they wait longer than the load lasts
    assert target.load("/503", concurrency=3, obeys=False).errors > 3


def test_a_rate_says_how_many_are_sent(target: Target) -> None:
    assert target.load("/200", rate=40.0).answered == 20


def test_times_at_a_rate_count_from_the_moment_a_request_was_due(target: Target) -> None:
    """The last of five is due after 0.4 s; its one client is held up by the four before it."""
    outcome = target.load("/slow", concurrency=1, rate=10.0)
    assert outcome.answered == 5
    assert outcome.milliseconds(1.0) > 1000 * (5 * SLOW_S - 0.41)


def test_percentiles_are_of_good_answers_alone() -> None:
    outcome = Outcome(seconds=2.0, times={200: [0.01, 0.02, 0.03], 503: [5.0], BROKEN: [9.0]})
    assert outcome.milliseconds(0.5) == pytest.approx(20)
    assert outcome.milliseconds(1.0) == pytest.approx(30)
    assert (outcome.throughput, outcome.errors) == (1.5, 2)
