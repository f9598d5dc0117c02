"""python -m training.serving.bento.stand_in FD SECONDS WORKER...: answers 503 on a listening socket for a while, then
becomes the worker, whose arguments for Python follow.

It stands in for workers that end again and again (supervision.py). It leaves each connection for a moment to a worker
that may be there after all.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import threading
import time
import uuid
from contextlib import suppress

LEAVE_S = 0.1  # in which a connection is left to a worker
CLIENT_S = 1.0  # in which a client is to send what it began to send
AT_ONCE = 32  # connections


def answer() -> bytes:
    """One response, in the form of errors.py."""
    error = {
        "code": "not_ready",
        "message": "the workers of the service end again and again",
        "hint": "try again in a moment; the server's log says why they end",
    }
    body = json.dumps({"error": error, "request_id": uuid.uuid4().hex}).encode()
    head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Retry-After: 5\r\nConnection: close\r\n\r\n".encode() + body


def serve(listening: socket.socket, seconds: float) -> None:
    """Answer whoever connects in that time."""
    listening.setblocking(False)
    end, places = time.monotonic() + seconds, threading.Semaphore(AT_ONCE)
    while (left := end - time.monotonic()) > 0:
        if select.select([listening], [], [], left)[0]:
            time.sleep(LEAVE_S)
            with suppress(OSError):
                places.acquire()
                connection, _ = listening.accept()
                threading.Thread(target=_tell, args=(connection, places)).start()
                continue
            places.release()
    for _ in range(AT_ONCE):
        places.acquire(timeout=CLIENT_S)


def _tell(connection: socket.socket, places: threading.Semaphore) -> None:
    with connection, suppress(OSError):
        connection.settimeout(CLIENT_S)
        connection.recv(1 << 16)
        connection.sendall(answer())
        connection.shutdown(socket.SHUT_WR)
        end = time.monotonic() + CLIENT_S
        while time.monotonic() < end and connection.recv(1 << 16):
            pass  # what is not read would break the connection before the answer is there
    places.release()


if __name__ == "__main__":
    listening = socket.socket(fileno=int(sys.argv[1]))
    serve(listening, float(sys.argv[2]))
    os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
