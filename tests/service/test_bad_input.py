"""Whatever a client sends, it gets a 4xx in one shape, and the requests beside it never notice."""

from __future__ import annotations

import contextlib
import json
import pickle
import select
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPResponse, RemoteDisconnected
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.drawing import scanned, tiled
from tests.service.pictures import bomb, cat, encode, large_but_allowed
from tests.service.server import Server, raw_post, reads_nothing, talk

FORM = {"Content-Type": "multipart/form-data; boundary=b"}
PICKLE = {"Content-Type": "application/vnd.bentoml+pickle"}
FIELDS = {"/predict": "image", "/explain": "image", "/heatmap": "image", "/predict_batch": "images"}  # of their forms


def form(*parts: bytes, end: bytes = b"--b--\r\n") -> bytes:
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + end


def field(name: str, data: bytes, filename: str | None = "a.png") -> bytes:
    file = f'; filename="{filename}"' if filename is not None else ""
    return f'Content-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + data


PNG = encode(cat(), "PNG")
JPEG = encode(cat(), "JPEG")
ONE_FILE = {
    "empty file": (b"", 422, "empty"),
    "text": (b"hello", 415, "not_an_image"),
    "truncated jpeg": (JPEG[: len(JPEG) // 2], 422, "corrupt"),
    "truncated png": (PNG[: len(PNG) // 2], 422, "corrupt"),
    "only the header": (PNG[:24], 422, "corrupt"),
    "unsupported format": (encode(cat(), "ICO"), 415, "not_an_image"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "not_an_image"),
    "bomb": (bomb(40_000, 40_000), 413, "too_many_pixels"),
    "large png": (bomb(4001, 4000), 413, "too_many_pixels"),
    "many scans": (scanned(Image.new("L", (1700, 1700)), 300), 413, "too_many_pixels"),
    "large tile": (tiled(100, 8000), 413, "too_many_pixels"),
    "extreme aspect": (encode(Image.new("RGB", (4000, 10)), "PNG"), 422, "extreme_aspect"),
    "too small": (encode(Image.new("RGB", (3, 3)), "PNG"), 422, "too_small"),
    "too many bytes": (b"\0" * 2_000_001, 413, "too_many_bytes"),
    "pickle": (pickle.dumps({"a": 1}), 415, "not_an_image"),
}
JSON = {"Content-Type": "application/json"}
Body = tuple[dict[str, str], bytes, int, str]  # headers, body, status, code


def bodies(name: str) -> dict[str, Body]:
    """What no address with the field `name` takes."""
    picture = field(name, PNG)
    return {
        "no body": ({}, b"", 415, "wrong_content_type"),
        "no json": (JSON, b"{", 400, "broken_json"),
        "json of no object": (JSON, b"[1]", 422, "missing_field"),
        "json without the field": (JSON, b'{"data": 1}', 422, "missing_field"),
        "deep json": (JSON, b"[" * 100_000, 400, "broken_json"),
        "text": ({"Content-Type": "text/plain"}, PNG, 415, "wrong_content_type"),
        "pickled": (PICKLE, pickle.dumps([1]), 415, "wrong_content_type"),
        "no boundary": ({"Content-Type": "multipart/form-data"}, form(picture), 400, "broken_multipart"),
        "wrong boundary": (FORM, form(picture).replace(b"--b", b"--c"), 400, "broken_multipart"),
        "not closed": (FORM, form(picture, end=b""), 400, "broken_multipart"),
        "no fields": (FORM, form(), 422, "missing_field"),
        "missing field": (FORM, form(field("picture", PNG)), 422, "missing_field"),
        "text in the field": (FORM, form(field(name, b"hello", filename=None)), 422, "not_a_file"),
        "many fields": (FORM, form(*[field("x", b"")] * 1000), 422, "too_many_fields"),
        "huge header": (FORM, form(b"X: " + b"y" * 100_000 + b"\r\n\r\n"), 400, "broken_multipart"),
    }


BODIES_OF_ONE: dict[str, Body] = {  # what an address for one picture does not take
    "repeated field": (FORM, form(field("image", PNG), field("image", PNG)), 422, "repeated_field"),
    "raw text as picture": ({"Content-Type": "image/png"}, b"hello", 415, "not_an_image"),
    "octets that are no picture": ({"Content-Type": "application/octet-stream"}, b"hello", 415, "not_an_image"),
    "number in json": (JSON, b'{"image": 1}', 422, "not_base64"),
    "list in json": (JSON, b'{"image": ["AAAA"]}', 422, "not_base64"),
    "no base64": (JSON, b'{"image": "%%%%"}', 422, "not_base64"),
    "cut base64": (JSON, b'{"image": "iVBORw0KGg"}', 422, "not_base64"),
    "letters beyond ascii": (JSON, '{"image": "k\u00e4tz"}'.encode(), 422, "not_base64"),
    "data url of text": (JSON, b'{"image": "data:text/plain,hello"}', 422, "not_base64"),
    "nothing in base64": (JSON, b'{"image": ""}', 422, "empty"),
    "text in base64": (JSON, b'{"image": "aGVsbG8="}', 415, "not_an_image"),
    "address in json": (JSON, b'{"image": "http://127.0.0.1/cat.png"}', 422, "not_a_file"),
    "long base64": (JSON, b'{"image": "' + b"A" * 2_760_000 + b'"}', 413, "too_many_bytes"),
    "raw empty": ({"Content-Type": "image/png"}, b"", 422, "empty"),
}


def assert_error(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error", "request_id"}
    assert set(body["error"]) == {"code", "message", "hint"}
    assert body["error"]["code"] == code
    assert all(body["error"].values())
    assert response.headers["X-Request-ID"] == body["request_id"]
    assert response.headers["X-Model-Version"] == "3"


@pytest.mark.parametrize("name", ONE_FILE)
@pytest.mark.parametrize("path", ["/predict", "/explain"])
def test_a_bad_file(client: httpx.Client, path: str, name: str) -> None:
    data, status, code = ONE_FILE[name]
    assert_error(client.post(path, files={"image": data}), status, code)


@pytest.mark.parametrize("name", ONE_FILE)
def test_a_bad_file_in_a_batch_has_its_own_error(client: httpx.Client, name: str) -> None:
    data, _, code = ONE_FILE[name]
    good, bad = client.post("/predict_batch", files=[("images", PNG), ("images", data)]).raise_for_status().json()
    assert good["label"] == "cat"
    assert bad["error"]["code"] == code


@pytest.mark.parametrize("name", bodies("image"))
@pytest.mark.parametrize("path", FIELDS)
def test_a_bad_body(client: httpx.Client, path: str, name: str) -> None:
    headers, body, status, code = bodies(FIELDS[path])[name]
    assert_error(client.post(path, content=body, headers=headers), status, code)


@pytest.mark.parametrize("name", BODIES_OF_ONE)
@pytest.mark.parametrize("path", ["/predict", "/explain"])
def test_a_bad_body_of_one_picture(client: httpx.Client, path: str, name: str) -> None:
    headers, body, status, code = BODIES_OF_ONE[name]
    assert_error(client.post(path, content=body, headers=headers), status, code)


def test_bad_batches(client: httpx.Client) -> None:
    assert_error(
        client.post("/predict_batch", content=PNG, headers={"Content-Type": "image/png"}), 415, "wrong_content_type"
    )
    assert_error(client.post("/predict_batch", files=[("image", PNG)]), 422, "missing_field")
    assert_error(client.post("/predict_batch", files=[("images", PNG)] * 33), 422, "too_many_pictures")
    assert_error(client.post("/predict_batch", json={"images": ["AAAA", {}]}), 422, "not_base64")
    assert_error(client.post("/predict_batch", json={"images": ["AAAA"] * 33}), 422, "too_many_pictures")
    wrong: Any
    for wrong in ("AAAA", [], {"0": "AAAA"}):
        assert_error(client.post("/predict_batch", json={"images": wrong}), 422, "missing_field")


@pytest.mark.parametrize("query", ["abstain=maybe", "abstain="])
def test_a_bad_parameter(client: httpx.Client, query: str) -> None:
    assert_error(client.post(f"/predict?{query}", files={"image": PNG}), 422, "wrong_parameter")


@pytest.mark.parametrize("query", ["heat=maybe", "format=json", "format=gif"])
def test_a_bad_parameter_of_the_heat_map(client: httpx.Client, query: str) -> None:
    assert_error(client.post(f"/explain?{query}", files={"image": PNG}), 422, "wrong_parameter")


@pytest.mark.parametrize(
    "path", ["/nope", "/predict/", "/static_content/nope.js", "/static_content/../service.py", "/docs.json/x"]
)
def test_unknown_addresses_are_not_found_and_make_no_metrics(client: httpx.Client, path: str) -> None:
    assert_error(client.get(path), 404, "not_found")
    assert f'endpoint="{path}"' not in client.get("/metrics").text


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/predict"), ("DELETE", "/predict"), ("POST", "/health"), ("PUT", "/docs")]
)
def test_wrong_methods(client: httpx.Client, method: str, path: str) -> None:
    answer = client.request(method, path)
    assert_error(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"]


@pytest.mark.parametrize(
    ("wanted", "status", "code"), [("bytes=999999999-", 416, "wrong_range"), ("bytes=x", 400, "invalid_request")]
)
def test_a_wrong_range_is_the_fault_of_the_client(client: httpx.Client, wanted: str, status: int, code: str) -> None:
    answer = client.get("/static_content/swagger-ui.css", headers={"Range": wanted})
    assert_error(answer, status, code)


@pytest.fixture
def trap() -> Iterator[HTTPServer]:
    """A server that no request must reach."""

    class Trap(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.server.sprung = True  # type: ignore[attr-defined]
            self.send_response(200)
            self.end_headers()

    server = HTTPServer(("127.0.0.1", 0), Trap)
    server.sprung = False  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@dataclass
class Fetch:
    """Fetches an address where it is unpickled."""

    address: str

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return urllib.request.urlopen, (self.address,)


@pytest.mark.parametrize("path", FIELDS)
def test_an_address_is_never_fetched(client: httpx.Client, trap: HTTPServer, path: str) -> None:
    name, address = FIELDS[path], f"http://127.0.0.1:{trap.server_port}/cat.png"
    text = client.post(path, content=form(field(name, address.encode(), filename=None)), headers=FORM)
    assert_error(text, 422, "not_a_file")
    assert_error(client.post(path, data={name: address}), 415, "wrong_content_type")
    inside = client.post(path, json={name: [address] if name == "images" else address})
    if name == "images":
        assert [each["error"]["code"] for each in inside.json()] == ["not_a_file"]
    else:
        assert_error(inside, 422, "not_a_file")
    pickled = client.post(path, content=pickle.dumps({name: Fetch(address)}), headers=PICKLE)
    assert_error(pickled, 415, "wrong_content_type")
    file = client.post(path, files={name: address.encode()})
    if path == "/predict_batch":  # each picture has an error of its own
        assert file.status_code == 200
        assert [each["error"]["code"] for each in file.json()] == ["not_an_image"]
    else:
        assert_error(file, 415, "not_an_image")
    time.sleep(0.2)
    assert not trap.sprung  # type: ignore[attr-defined]


def test_the_limit_is_of_the_picture_not_of_the_form(client: httpx.Client) -> None:
    padded = PNG + b"\0" * (2_000_000 - len(PNG))
    assert client.post("/predict", files={"image": padded}).status_code == 200
    assert_error(client.post("/predict", files={"image": padded + b"\0"}), 413, "too_many_bytes")


def test_too_much_is_refused_before_it_is_read(server: Server) -> None:
    assert talk(server, raw_post(9_000_000_000) + b"\0" * 1000)[0] == 413
    chunked = raw_post(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    chunk = b"100000\r\n" + b"\0" * 0x100000 + b"\r\n"
    assert talk(server, chunked + chunk * 3)[0] == 413


def test_a_slow_client_is_told_to_hurry(server: Server) -> None:
    status, body = talk(server, raw_post(1000) + b"\0" * 10)
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (408, "slow_upload")
    assert "within 2 s" in error["message"]


@pytest.mark.parametrize("pieces", [[b""], [b"POST /predict HT"], [b"POST /predict HTTP/1.1\r\n", b"X-A: 1\r\n"]])
def test_a_head_that_does_not_come_holds_no_connection(server: Server, pieces: list[bytes]) -> None:
    status, body = talk(server, *pieces, pause=0.5)
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (408, "slow_head")
    assert "within 2 s" in error["message"]


GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


def status_on(connection: socket.socket) -> int:
    response = HTTPResponse(connection)
    response.begin()
    response.read()
    return response.status


def test_a_kept_connection_may_send_its_next_request_late_but_not_slowly(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(GET)
        assert status_on(connection) == 200
        time.sleep(2.5)
        connection.sendall(GET)
        assert status_on(connection) == 200
        connection.sendall(GET[:20])
        assert status_on(connection) == 408


def ends(connection: socket.socket, seconds: float) -> bool:
    """Whether the server hangs up, though nothing is read."""
    hang_up = select.poll()
    hang_up.register(connection, select.POLLRDHUP)
    return bool(hang_up.poll(seconds * 1000))


@pytest.mark.parametrize("head", [raw_post(1000).replace(b"/predict", b"/nope"), raw_post(9_000_000)])
def test_a_body_that_was_answered_early_must_still_come(server: Server, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head)
        assert status_on(connection) in (404, 413)
        connection.sendall(b"x")
        assert ends(connection, 4)


def test_a_body_that_was_answered_early_and_comes_leaves_the_connection_usable(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(raw_post(1000).replace(b"/predict", b"/nope"))
        assert status_on(connection) == 404
        connection.sendall(b"x" * 999)
        time.sleep(0.5)
        connection.sendall(b"x" + GET)
        assert status_on(connection) == 200
        time.sleep(2.5)
        connection.sendall(GET)
        assert status_on(connection) == 200


def test_an_empty_line_holds_no_connection(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(GET)
        assert status_on(connection) == 200
        connection.sendall(b"\r\n")
        assert status_on(connection) == 408


def test_a_client_that_does_not_read_is_hung_up_on(server: Server, client: httpx.Client) -> None:
    wanted = 20 * len(client.get("/static_content/swagger-ui-bundle.js").content)
    with reads_nothing(server) as connection:
        time.sleep(5)
        got = 0
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(2**20):
                got += len(data)
    assert 0 < got < wanted / 2


def test_a_head_that_does_not_come_costs_no_answer_before_it(server: Server) -> None:
    """Twelve pictures of 16 million pixels take longer than a head may."""
    body = form(*[field("images", large_but_allowed())] * 12)
    head = raw_post(len(body), FORM["Content-Type"]).replace(b"/predict", b"/predict_batch")
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(head + body + GET[:10])
        assert status_on(connection) == 200
        assert connection.recv(1) == b""  # had it come sooner, 408 would follow


def test_a_client_that_reads_slowly_gets_all(server: Server, client: httpx.Client) -> None:
    wanted = 20 * len(client.get("/static_content/swagger-ui-bundle.js").content)
    with reads_nothing(server) as connection:
        got = 0
        for _ in range(10):
            time.sleep(0.5)
            got += len(connection.recv(20_000, socket.MSG_WAITALL))
        while got < wanted and (data := connection.recv(2**20)):
            got += len(data)
    assert got >= wanted


def test_headers_without_end_are_refused(server: Server) -> None:
    status, body = talk(server, b"GET /livez HTTP/1.1\r\n" + b"X-A: aaaaaaaaaa\r\n" * 10_000)
    assert (status, json.loads(body)["error"]["code"]) == (431, "long_head")


def test_an_answer_to_no_request_says_which_model_is_served_too(server: Server, client: httpx.Client) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(b"no HTTP\r\n\r\n")
        response = HTTPResponse(connection)
        response.begin()
        body = json.loads(response.read())
    assert response.headers["X-Request-ID"] == body["request_id"]
    assert response.headers["X-Model-Version"] == client.get("/livez").headers["X-Model-Version"]


def test_what_is_not_http_is_told_so(server: Server) -> None:
    status, body = talk(server, b"\x16\x03\x01 hello\r\n\r\n")
    assert (status, json.loads(body)["error"]["code"]) == (400, "invalid_http")


def test_a_connection_closed_half_way_harms_nobody(server: Server, client: httpx.Client) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(raw_post(999) + b"abc")
    assert client.post("/predict", files={"image": PNG}).json()["label"] == "cat"


def test_a_client_that_closes_its_sending_side_gets_its_answer(server: Server, client: httpx.Client) -> None:
    for _ in range(20):
        assert talk(server, raw_post(len(PNG)) + PNG, half_close=True)[0] == 200
    with pytest.raises(RemoteDisconnected):
        talk(server, raw_post(len(PNG)) + PNG[:10], half_close=True)
    assert client.post("/predict", files={"image": PNG}).json()["label"] == "cat"


def test_good_requests_beside_bad_ones_never_notice(client: httpx.Client) -> None:
    bad = [data for data, _, _ in ONE_FILE.values()]

    def ask(number: int) -> tuple[int, dict[str, float] | None]:
        data = PNG if number % 2 else bad[number // 2 % len(bad)]
        answer = client.post("/predict", files={"image": data})
        return answer.status_code, answer.json().get("probabilities")

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(240)))
    good, refused = answers[1::2], answers[::2]
    assert all(400 <= status < 500 for status, _ in refused)
    assert all(answer == good[0] for answer in good)
    assert good[0][0] == 200


def test_no_websocket_is_opened(server: Server) -> None:
    lines = (
        "GET /predict HTTP/1.1",
        "Host: x",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
    )
    head = "\r\n".join((*lines, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "", "")).encode()
    status, body = talk(server, head)
    assert (status, json.loads(body)["error"]["code"]) == (405, "method_not_allowed")


def test_bad_requests_leave_nothing_behind(server: Server, client: httpx.Client) -> None:
    """Runs last in this file: no traceback in the log, nothing counted as still waiting."""
    assert client.post("/predict", files={"image": PNG}).status_code == 200
    assert "Traceback" not in server.log.read_text()
