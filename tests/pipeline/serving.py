"""A real `mlflow server`, and what stands in front of one at many places: TLS, a path prefix, a demand for a login."""

from __future__ import annotations

import base64
import http.client
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from tests.authority import Authority
from tests.service.server import free_port

PREFIX = "/team/mlflow"
TO_THIS_MACHINE = {  # webhooks, without TLS; one that is made counts at once
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http",
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    "MLFLOW_WEBHOOK_CACHE_TTL": "0",
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": base64.urlsafe_b64encode(bytes(32)).decode(),
}
HOP_BY_HOP = ("connection", "host", "transfer-encoding", "content-length")


@contextmanager
def mlflow_server(
    root: Path, *options: str, backend: str | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """`mlflow server` with its database (unless `backend` names another) and artifacts under `root`; its address."""
    port = free_port()
    stores = ["--backend-store-uri", backend or f"sqlite:///{root}/mlflow.db"]
    stores += ["--artifacts-destination", str(root / "artifacts")]
    where = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_TRACKING")}
    own = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | TO_THIS_MACHINE
    with (root / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *where, *stores, *options],
            cwd=root,
            env=kept | own | dict(environment or {}),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        url = f"http://127.0.0.1:{port}"
        try:
            _wait(url, process, root / "log")
            yield url
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(20)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended: {log.read_text()[-2000:]}"
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the server did not start")


class _Front(BaseHTTPRequestHandler):
    """Passes on what is under PREFIX, without it, if the login is right: as nginx with auth_basic does."""

    protocol_version = "HTTP/1.1"
    behind = ""
    login = ""

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != self.login:
            return self._answer(401, {"WWW-Authenticate": 'Basic realm="mlflow"'}, b"")
        if not self.path.startswith(f"{PREFIX}/"):
            return self._answer(404, {}, b"")
        connection = http.client.HTTPConnection(self.behind)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        connection.request(self.command, self.path.removeprefix(PREFIX), body or None, headers)
        answer = connection.getresponse()
        data = answer.read()
        self._answer(answer.status, {k: v for k, v in answer.getheaders() if k.lower() not in HOP_BY_HOP}, data)
        return connection.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on

    def _answer(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def in_front_of(url: str, login: str, authority: Authority) -> Iterator[str]:
    """The address, with TLS and a prefix, of a proxy before the server at `url` that demands the header `login`."""
    handler = type("Front", (_Front,), {"behind": url.removeprefix("http://"), "login": login})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.socket = authority.server().wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # of handshakes that are meant to fail
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}{PREFIX}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
