"""Hostile requests while good clients run; `HOSTILE_REQUESTS=5000 pytest -s tests/service/test_hostile.py` for many.

Mutated pictures of every format, mutated forms, bombs, slow clients. By default a hundred, to be quick, against a tiny
model; MODEL_PATH=/absolute/path/of/models/model takes a real one.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from http.client import HTTPResponse
from multiprocessing import get_context
from pathlib import Path
from threading import Event

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from tests.service.pictures import bomb, encode, good_kinds, large_but_allowed
from tests.service.server import Server, children, raw_post
from tests.service.test_bad_input import BODIES_OF_ONE, FORM, field, form

REQUESTS = int(os.environ.get("HOSTILE_REQUESTS", "120"))
GOOD_CLIENTS = 8
HOSTILE_CLIENTS = 2
SLOW_CLIENTS = 20
SAME = 1e-3  # in probability: batches change the rounding
GROWTH_MB = 60  # of the worker's memory while it was attacked


@pytest.fixture(scope="module")
def attacked(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    own = Path(shutil.copytree(project, tmp_path_factory.mktemp("attacked") / "project"))
    server = Server.start(own, own / "home", SERVE_DRAIN="0", SERVE_UPLOAD_TIMEOUT="2")
    yield server
    assert server.stop() == 0


def hostile(number: int, pictures: list[bytes], large: bytes) -> tuple[str, dict[str, str], bytes]:
    """Address, headers and body of one hostile request."""
    chance = random.Random(number)
    kind = number % 10
    if kind == 0:
        headers, body, _, _ = list(BODIES_OF_ONE.values())[chance.randrange(len(BODIES_OF_ONE))]
        return "/predict", headers, body
    if kind == 1:
        return "/predict", FORM, mutated(form(field("image", pictures[0])), chance)
    if kind == 2:
        return "/explain", FORM, form(field("image", bomb(chance.randint(1, 2**31 - 1), chance.randint(1, 2**31 - 1))))
    if kind == 3 and number % 50 == 3:
        return "/predict", FORM, form(field("image", large))
    parts = [field("images", mutated(chance.choice(pictures), chance)) for _ in range(3)]
    if kind == 4:
        return "/predict_batch", FORM, form(*parts)
    return "/predict", FORM, form(field("image", mutated(chance.choice(pictures), chance)))


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, then perhaps cut off or repeated."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 20)):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    end = len(changed) if chance.random() < 0.7 else chance.randrange(len(changed))
    return bytes(changed[:end]) * chance.choice((1, 1, 1, 2))


def attack(url: str, numbers: range) -> Counter[int]:
    """Send these hostile requests one after another; how often each status came back. Runs in a process of its own."""
    pictures, large = list(good_kinds().values()), large_but_allowed()
    statuses: Counter[int] = Counter()
    with httpx.Client(base_url=url, timeout=30) as client:
        for number in numbers:
            address, headers, body = hostile(number, pictures, large)
            statuses[client.post(address, headers=headers, content=body).status_code] += 1
    return statuses


def good_times(client: httpx.Client, picture: bytes, expected: dict[str, float], stop: Event) -> list[float]:
    """Ask until told to stop; every answer must be the expected one. Seconds of each."""
    times = []
    while not stop.is_set():
        begun = time.perf_counter()
        answer = client.post("/predict", files={"image": picture})
        times.append(time.perf_counter() - begun)
        assert answer.json()["probabilities"] == pytest.approx(expected, abs=SAME)
    return times


def resident_mb(pids: Iterable[int]) -> float:
    return float(sum(psutil.Process(pid).memory_info().rss for pid in pids)) / 2**20


def statuses_of_good(client: httpx.Client, picture: bytes, stop: Event) -> Counter[int]:
    """Of the requests of a good client that asks until it is told to stop."""
    statuses: Counter[int] = Counter()
    while not stop.is_set():
        statuses[client.post("/predict", files={"image": picture}).status_code] += 1
        time.sleep(0.05)
    return statuses


def waiting(client: httpx.Client) -> float:
    lines = client.get("/metrics").text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith("classifier_waiting_pictures "))


def test_pictures_that_are_slow_to_decode_take_no_place_of_others(attacked: Server, cat: bytes) -> None:
    """More of them at once than pictures may wait, each of 56 kB."""
    stop, large = Event(), large_but_allowed()
    with httpx.Client(base_url=attacked.url, timeout=30) as client, ThreadPoolExecutor(1) as pool:
        good = pool.submit(statuses_of_good, client, cat, stop)
        greedy = [socket.create_connection(("127.0.0.1", attacked.port)) for _ in range(150)]
        for connection in greedy:
            connection.sendall(raw_post(len(large)) + large)
        time.sleep(2)
        stop.set()
        assert set(good.result()) == {200}
        heads = [connection.recv(12, socket.MSG_DONTWAIT) for connection in greedy if readable(connection)]
        assert b"HTTP/1.1 503" in heads  # their own places are few
        for connection in greedy:
            connection.close()


def readable(connection: socket.socket) -> bool:
    return bool(select.select([connection], [], [], 0)[0])


def test_who_is_gone_gives_its_places_back(attacked: Server) -> None:
    body = form(*[field("images", large_but_allowed())] * 32)
    head = raw_post(len(body), FORM["Content-Type"]).replace(b"/predict", b"/predict_batch")
    gone = [socket.create_connection(("127.0.0.1", attacked.port)) for _ in range(4)]
    for connection in gone:
        connection.sendall(head + body)
    time.sleep(0.3)
    for connection in gone:
        connection.close()
    with httpx.Client(base_url=attacked.url, timeout=30) as client:
        for _ in range(40):  # a picture that is being decoded is decoded to its end; 127 others were to come
            if client.post("/predict", files={"image": large_but_allowed()}).status_code == 200:
                break
            time.sleep(0.1)
        else:
            pytest.fail("the places of clients that are gone are still taken")
        assert waiting(client) == 0


def test_memory_that_stands_still_is_taken_from_its_holder_not_from_who_comes(attacked: Server) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    good = encode(Image.fromarray(noise), "PNG")  # more than needs no room
    stalled = [socket.create_connection(("127.0.0.1", attacked.port)) for _ in range(12)]
    for connection in stalled:
        connection.sendall(raw_post(10_400_000) + bytes(9_900_000))
    with httpx.Client(base_url=attacked.url, timeout=30) as client:
        answers = [client.post("/predict", content=good, headers={"Content-Type": "image/png"}) for _ in range(8)]
    assert [answer.status_code for answer in answers] == [200] * 8
    cut = [json.loads(answer_on(connection)) for connection in stalled if readable(connection)]
    assert cut
    assert {(each["error"]["code"], "memory" in each["error"]["message"]) for each in cut} == {("slow_upload", True)}
    for connection in stalled:
        connection.close()


def answer_on(connection: socket.socket) -> bytes:
    response = HTTPResponse(connection)
    response.begin()
    return response.read()


def test_good_clients_never_notice(attacked: Server, cat: bytes) -> None:
    workers = children(attacked.process.pid)
    processes = ProcessPoolExecutor(HOSTILE_CLIENTS, get_context("spawn"))
    with httpx.Client(base_url=attacked.url, timeout=30) as client, processes, ThreadPoolExecutor(GOOD_CLIENTS) as pool:
        expected = client.post("/predict", files={"image": cat}).json()["probabilities"]

        def alongside(requests: int, seconds: float = 0) -> tuple[Counter[int], list[float]]:
            """Statuses of so many hostile requests, and the times of the good ones meanwhile."""
            stop = Event()
            good = [pool.submit(good_times, client, cat, expected, stop) for _ in range(GOOD_CLIENTS)]
            shares = [range(first, requests, HOSTILE_CLIENTS) for first in range(HOSTILE_CLIENTS)]
            statuses = sum(processes.map(partial(attack, attacked.url), shares), Counter[int]())
            time.sleep(seconds)
            stop.set()
            return statuses, [each for times in good for each in times.result()]

        alongside(40)
        before = resident_mb(workers)
        _, quiet = alongside(0, seconds=2)
        slow = [socket.create_connection(("127.0.0.1", attacked.port)) for _ in range(SLOW_CLIENTS)]
        for connection in slow:
            connection.sendall(raw_post(100_000) + b"slow")
        statuses, busy = alongside(REQUESTS)
        for connection in slow:
            connection.close()
        after = resident_mb(workers)
    ratio = float(np.quantile(busy, 0.99) / np.quantile(quiet, 0.99))
    print(f"statuses {dict(statuses)}, p99 of good clients x {ratio:.2f}, memory {before:.0f} -> {after:.0f} MB")
    assert set(statuses) <= {200, 400, 413, 415, 422}
    assert sum(statuses.values()) == REQUESTS
    assert statuses[200] < REQUESTS / 2
    assert children(attacked.process.pid) == workers
    assert after - before < GROWTH_MB
    assert "Traceback" not in attacked.log.read_text()
