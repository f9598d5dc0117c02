"""Whether a server may listen on a port of this machine, and who holds it otherwise.

python -m training.common.port [--host HOST] PORT      before `bentoml serve`, which would end in a traceback
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import socket
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from typing import Any

import psutil

from training.common.command import run_command
from training.common.errors import ExpectedError

HERE = "127.0.0.1"
PRIVILEGED = 1024  # ports below are root's
TIMEOUT_S = 2.0


class PortError(ExpectedError):
    """Nothing of ours can listen there; the message says why, and which port is free."""


def number(text: str) -> int:
    """A port as an argument of a command; argparse.ArgumentTypeError for what is none."""
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: PORT is a number from 1 to 65535")
    return int(text)


def check(port: int, host: str = HERE) -> None:
    """PortError unless a server can listen on `port` of the address `host` now."""
    try:
        _bind(port, host)
    except PermissionError:
        raise PortError(f"port {port} needs root: choose another with PORT={free(3000, host)}") from None
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise PortError(f"nothing can listen on {host}:{port}: {error.strerror}: check HOST and PORT") from None
        raise PortError(
            f"port {port} is taken: {holder(port)}. Stop it, or choose another with PORT={free(port + 1, host)}"
        ) from None


def _bind(port: int, host: str) -> None:
    """OSError unless `port` can be listened on."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    # On macOS an address can be bound beside a server on all addresses, and would take its connections.
    with contextlib.suppress(OSError), socket.create_connection((HERE, port), timeout=TIMEOUT_S):
        raise OSError(errno.EADDRINUSE, "taken") from None
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server itself does
        probe.bind(address)


def free(start: int, host: str = HERE) -> int:
    """The first free port from `start` on."""
    port: int
    for port in (*range(start, 65536), *range(PRIVILEGED, start)):
        with contextlib.suppress(OSError):
            _bind(port, host)
            return port
    raise PortError(f"no port of {host} is free")


def holder(port: int) -> str:
    """Who listens on `port` of this machine, and what they answer to /health."""
    return f"{_program(port)} {_health(port)}"


def _program(port: int) -> str:
    """Name and number of the process; other users' processes are not always shown."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.pid and connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return "another program"


def _health(port: int) -> str:
    with contextlib.closing(HTTPConnection(HERE, port, timeout=TIMEOUT_S)) as connection:
        try:
            connection.request("GET", "/health")
            answer = connection.getresponse()
            body = answer.read(100_000)
        except (OSError, HTTPException):
            return "does not answer HTTP"
    try:
        model: dict[str, Any] = json.loads(body)["model"]
        return f"serves {model['bento_tag']}, version {model['version']}"
    except (ValueError, KeyError, TypeError):
        return f"answers {answer.status} to /health"


def is_held_by(port: int, pid: int) -> bool:
    """Whether the process `pid`, or one that it started, listens on `port`."""
    return any(
        connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        for process in _family(pid)
        for connection in _connections(process)
    )


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _connections(process: psutil.Process) -> Iterator[Any]:
    with contextlib.suppress(psutil.Error):
        yield from process.net_connections("tcp")


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m training.common.port", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("port", type=number)
    parser.add_argument("--host", default=HERE, help="address to listen on (default %(default)s)")
    arguments = parser.parse_args()
    check(arguments.port, arguments.host)


if __name__ == "__main__":
    run_command(main)
