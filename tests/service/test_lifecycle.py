"""Overload, timeouts, keys, rates, a killed worker, and going down: a server with tight limits."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

from tests.service.pictures import encode, plain
from tests.service.server import Server, children, raw_post, reads_nothing, talk
from training.serving.connections.protocol import OVERLOAD_PAUSE_S

KEY = {"X-API-Key": "second"}
TIGHT = {
    "SERVE_DRAIN": "1.5",
    "SERVE_MAX_WAITING": "4",
    "SERVE_TIMEOUT": "2",
    "SERVE_UPLOAD_TIMEOUT": "4",
    "SERVE_CORS_ORIGINS": '["https://page.example"]',
    "API_KEYS": "first,second",
    "SERVE_LOG_DIR": "/dev/null/logs",  # cannot be made
}


@pytest.fixture(scope="module")
def tight(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    own = tmp_path_factory.mktemp("tight") / "project"
    shutil.copytree(project, own)
    server = Server.start(own, own / "home", **TIGHT)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def slow_picture() -> bytes:
    """Takes an eighth of a second to decode, and no time to send."""
    return encode(plain((2000, 1990), (10, 20, 30, 128), "RGBA"), "PNG")


def test_overload_is_refused_at_once_and_what_is_accepted_is_answered(tight: Server, slow_picture: bytes) -> None:
    with httpx.Client(base_url=tight.url, timeout=20, headers=KEY) as client, ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda _: client.post("/predict", files={"image": slow_picture}), range(48)))
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {200, 503}
    refused = [answer for answer in answers if answer.status_code == 503]
    assert {answer.json()["error"]["code"] for answer in refused} == {"overloaded"}
    assert {answer.headers["Retry-After"] for answer in refused} == {"1"}
    after = httpx.post(f"{tight.url}/predict", files={"image": slow_picture}, headers=KEY, timeout=20)
    assert after.status_code == 200


def test_who_comes_back_at_once_is_read_a_moment_later(tight: Server, slow_picture: bytes) -> None:
    impatient = HTTPConnection("127.0.0.1", tight.port, timeout=20)

    def ask() -> int:
        impatient.request("POST", "/predict", slow_picture, KEY | {"Content-Type": "image/png"})
        answer = impatient.getresponse()
        answer.read()
        return answer.status

    def keep_busy() -> None:
        while not refused.is_set():
            httpx.post(f"{tight.url}/predict", files={"image": slow_picture}, headers=KEY, timeout=20)

    refused = threading.Event()
    with contextlib.closing(impatient), ThreadPoolExecutor(8) as pool:
        busy = [pool.submit(keep_busy) for _ in range(8)]
        try:
            deadline = begun = time.monotonic() + 30
            status = 200
            while status != 503:
                begun = time.monotonic()
                assert begun < deadline
                status = ask()
            ask()
            assert time.monotonic() - begun >= OVERLOAD_PAUSE_S
        finally:
            refused.set()
        for one in busy:
            one.result()


def test_no_request_hangs_longer_than_the_timeout(tight: Server, cat: bytes) -> None:
    status, body = talk(tight, raw_post(9))
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (504, "timeout")
    assert "within 2 s" in error["message"]
    assert httpx.post(f"{tight.url}/predict", files={"image": cat}, headers=KEY).status_code == 200


@pytest.mark.parametrize(
    "headers", [{}, {"X-API-Key": "third"}, {"Authorization": "Basic first"}, {"X-API-Key": "fïrst".encode("latin-1")}]
)
def test_without_a_valid_key_nothing_is_classified(tight: Server, cat: bytes, headers: dict[str, str]) -> None:
    for path, name in (("/predict", "image"), ("/predict_batch", "images"), ("/explain", "image")):
        answer = httpx.post(tight.url + path, files={name: cat}, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "no_valid_key"
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert httpx.get(f"{tight.url}/readyz").status_code == 200


@pytest.mark.parametrize("headers", [{"X-API-Key": "first"}, {"Authorization": "Bearer second"}])
def test_each_key_is_taken_in_either_header(tight: Server, cat: bytes, headers: dict[str, str]) -> None:
    assert httpx.post(f"{tight.url}/predict", files={"image": cat}, headers=headers).status_code == 200


def test_named_origins_only_may_call_from_a_web_page(tight: Server, server: Server) -> None:
    asked = {"Access-Control-Request-Method": "POST"}
    allowed = httpx.options(f"{tight.url}/predict", headers=asked | {"Origin": "https://page.example"})
    assert allowed.headers["Access-Control-Allow-Origin"] == "https://page.example"
    other = httpx.options(f"{tight.url}/predict", headers=asked | {"Origin": "https://other.example"})
    assert "Access-Control-Allow-Origin" not in other.headers
    assert (other.status_code, other.json()["error"]["code"]) == (400, "not_allowed")
    assert other.headers["X-Request-ID"] == other.json()["request_id"]
    assert allowed.headers["X-Request-ID"]
    assert allowed.headers["X-Model-Version"] == other.headers["X-Model-Version"] == "3"
    refused = httpx.post(f"{tight.url}/predict", headers={"Origin": "https://page.example"})
    assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (401, "https://page.example")
    off = httpx.options(f"{server.url}/predict", headers=asked | {"Origin": "https://page.example"})
    assert off.status_code == 405


def test_a_request_log_that_cannot_be_written_costs_no_answer_and_is_told_once(tight: Server, cat: bytes) -> None:
    with httpx.Client(base_url=tight.url, headers=KEY) as client:
        answers = [client.post("/predict", files={"image": cat}).raise_for_status().json() for _ in range(3)]
        time.sleep(0.5)
        text = client.get("/metrics").raise_for_status().text
        refused = client.post("/feedback", json={"request_id": answers[0]["request_id"], "label": "cat"})
    lost = re.search(r"^classifier_request_log_errors_total (\S+)", text, re.MULTILINE)
    assert lost
    assert float(lost[1]) >= 3
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_recorded")
    assert "the request log cannot be used" in refused.json()["error"]["message"]
    told = re.findall(r"classifier:(\d+)\] request log: .*; predictions go on unrecorded", tight.log.read_text())
    assert told
    assert len(told) == len(set(told))  # once by each worker


def test_feedback_needs_a_key_too(tight: Server) -> None:
    answer = httpx.post(f"{tight.url}/feedback", json={"request_id": "x", "label": "cat"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "no_valid_key")


def test_a_killed_worker_comes_back(tight: Server, cat: bytes) -> None:
    workers = children(tight.process.pid)
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    time.sleep(0.2)
    tight.wait_ready()
    deadline = time.monotonic() + 10
    while len(children(tight.process.pid)) < len(workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not workers & children(tight.process.pid)
    assert httpx.post(f"{tight.url}/predict", files={"image": cat}, headers=KEY).status_code == 200


def test_sigterm_first_ends_readiness_then_finishes_what_was_accepted_and_exits_0(tight: Server, cat: bytes) -> None:
    """Last in this file: the server is gone afterwards."""
    answers: list[tuple[int, bytes]] = []
    pieces = (raw_post(len(cat)) + cat[:-1], cat[-1:])
    uploading = threading.Thread(target=lambda: answers.append(talk(tight, *pieces, pause=1.9)))
    uploading.start()
    deaf = reads_nothing(tight)
    time.sleep(0.3)
    tight.process.send_signal(signal.SIGTERM)
    time.sleep(0.4)
    assert httpx.get(f"{tight.url}/readyz").status_code == 503
    still = httpx.post(f"{tight.url}/predict", files={"image": cat}, headers=KEY)
    assert (still.status_code, still.headers["Connection"]) == (200, "close")
    assert tight.process.wait(10) == 0
    deaf.close()
    uploading.join(5)
    assert [status for status, _ in answers] == [200]
