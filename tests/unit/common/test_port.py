"""Who holds a port, on real sockets."""

from __future__ import annotations

import argparse
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from training.common import port
from training.common.port import PortError

NOBODY = 65534
GONE = 2**22 + 1  # no process has such a number


@contextmanager
def answering(status: int, body: bytes) -> Iterator[int]:
    """The port of a server that answers every GET so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_port
        server.shutdown()


def told(number: int, host: str = "127.0.0.1") -> str:
    with pytest.raises(PortError) as error:
        port.check(number, host)
    return str(error.value)


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (404, b"<html>not here</html>", "answers 404 to /health"),
        (200, b'{"status": "up"}', "answers 200 to /health"),
        (200, json.dumps({"model": {"bento_tag": "pets:12", "version": "7"}}).encode(), "serves pets:12, version 7"),
    ],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_taken_port_names_its_holder_and_another_port(status: int, body: bytes, says: str, host: str) -> None:
    with answering(status, body) as number:
        message = told(number, host)
        assert port.is_held_by(number, os.getpid())
        assert not port.is_held_by(number, GONE)
    assert f"port {number} is taken: " in message
    assert f"(process {os.getpid()}) {says}. Stop it, or choose another with PORT=" in message
    port.check(int(message.rpartition("PORT=")[2]), host)
    port.check(number, host)


def test_a_holder_that_speaks_no_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "does not answer HTTP. Stop it" in told(silent.getsockname()[1])


def test_an_address_of_another_machine() -> None:
    assert "nothing can listen on 192.0.2.1:4000: " in told(4000, "192.0.2.1")


@pytest.mark.parametrize("text", ["0", "65536", "-1", "3000.0", "http", "", "٣٠٠٠"])
def test_what_is_no_port(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a port: PORT is a number from 1 to 65535"):
        port.number(text)


@pytest.mark.needs("ports-of-root")
def test_a_port_of_root() -> None:
    child = os.fork()
    if child == 0:
        if os.geteuid() == 0:
            os.setuid(NOBODY)
        try:
            port.check(1)
        except PortError as error:
            os._exit(7 if "port 1 needs root: choose another with PORT=" in str(error) else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
