"""What HTTP clients of other languages do beyond plain HTTP/1.1 is answered: the wire forms always, and the clients
where this machine has them."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from http.client import HTTPResponse
from pathlib import Path

import httpx
import pytest

from tests.service.server import Server, talk

H2C = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAA\r\n"
OFFERS = {
    "h2c, as by Java and curl --http2": H2C,
    "a websocket": "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    "TLS within HTTP": "Upgrade: TLS/1.0\r\nConnection: upgrade\r\n",
}
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
JAVA = """
import java.net.URI; import java.net.http.*; import java.nio.file.*;
public class Post {
  public static void main(String[] a) throws Exception {
    var body = HttpRequest.BodyPublishers.ofFile(Path.of(a[1]));
    var request = HttpRequest.newBuilder(URI.create(a[0])).header("Content-Type", "image/png").POST(body).build();
    var answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
    System.out.println(answer.statusCode());
  }
}
"""


def head(length: int, more: str = "") -> bytes:
    lines = f"Host: x\r\n{more}Content-Type: image/png\r\nContent-Length: {length}\r\n\r\n"
    return f"POST /predict HTTP/1.1\r\n{lines}".encode()


def answer(connection: socket.socket) -> tuple[int, str]:
    """Status, and the value of Connection."""
    response = HTTPResponse(connection)
    response.begin()
    response.read()
    return response.status, response.headers.get("Connection", "")


def rejections(client: httpx.Client, code: str) -> float:
    name = f'classifier_rejections_total{{code="{code}"}}'
    return sum(float(line.split()[-1]) for line in client.get("/metrics").text.splitlines() if line.startswith(name))


@pytest.mark.parametrize("client", OFFERS)
def test_an_offer_of_another_protocol_loses_no_body(server: Server, cat: bytes, client: str) -> None:
    request = head(len(cat), OFFERS[client]) + cat
    chunked = request.replace(f"Content-Length: {len(cat)}".encode(), b"Transfer-Encoding: chunked")
    chunked = chunked.replace(cat, b"%x\r\n%b\r\n0\r\n\r\n" % (len(cat), cat))
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        for pieces in ((request,), (request[:30], request[30:200], request[200:]), (chunked,), (GET,)):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.02)
            assert answer(connection) == (200, "")
        connection.sendall(request + GET)
        both = connection.makefile("rb")
        assert both.readline().startswith(b"HTTP/1.1 200")


def test_an_offer_may_expect_to_continue_and_may_end_the_connection(server: Server, cat: bytes) -> None:
    offer = H2C.replace("Upgrade, ", "close, Upgrade, ", 1)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head(len(cat), offer + "Expect: 100-continue\r\n"))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(cat)
        assert answer(connection) == (200, "close")


def test_nothing_is_connected_through(server: Server) -> None:
    status, body = talk(server, b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n")
    assert (status, json.loads(body)["error"]["code"]) == (405, "method_not_allowed")


def test_a_whole_request_before_junk_is_answered_and_ends_the_connection(server: Server, client: httpx.Client) -> None:
    before = rejections(client, "invalid_http")
    for pieces in ((GET + b"\x16\x03\x01 junk\r\n\r\n",), (GET + GET + b"junk", b" and more\r\n")):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            for piece in pieces:
                connection.sendall(piece)
            received = b"".join(iter(lambda: connection.recv(65536), b""))
        assert received.count(b"HTTP/1.1 200") == pieces[0].count(GET)
    assert rejections(client, "invalid_http") == before + 2


def test_long_heads_are_refused_however_they_come(server: Server, client: httpx.Client) -> None:
    before = rejections(client, "long_head")
    for request in (GET.replace(b"Host: x", b"Host: " + b"x" * 70_000), GET.replace(b"health", b"health" * 12_000)):
        status, body = talk(server, request)
        assert (status, json.loads(body)["error"]["code"]) == (431, "long_head")
    assert talk(server, GET.replace(b"Host: x", b"Host: " + b"x" * 60_000))[0] == 200
    assert rejections(client, "long_head") == before + 2


def test_a_scan_fills_no_log_and_is_counted(server: Server, client: httpx.Client) -> None:
    before, lines = rejections(client, "invalid_http"), server.log.read_text().count("\n")
    for _ in range(50):
        assert talk(server, b"\x16\x03\x01 hello\r\n\r\n")[0] == 400
    assert rejections(client, "invalid_http") == before + 50
    assert server.log.read_text().count("\n") - lines <= 2  # one of each worker


@pytest.mark.needs("java")
def test_java(server: Server, cat: bytes, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(cat)
    (tmp_path / "Post.java").write_text(JAVA)
    command = ["java", "Post.java", f"{server.url}/predict", "cat.png"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "200\n"


@pytest.mark.needs("curl")
def test_curl_that_offers_http2(server: Server, cat: bytes, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(cat)
    command = ["curl", "--silent", "--http2", "--form", "image=@cat.png", f"{server.url}/predict"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=30)
    assert json.loads(done.stdout)["label"] == "cat"
