"""Several workers, JSON logs, traces, every picture kept: what is true of one worker is true of the service."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from monitoring.feedback import export, latest
from tests.service.server import Server, children
from tests.service.test_watch import say, scrape
from training.serving.records.log_files import request_files

WORKERS = 8


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP on a free port of this machine; gathers the spans with the attributes of their resource."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[tuple[dict[str, str], dict[str, str]]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        for group in sent.resource_spans:
            resource = {each.key: each.value.string_value for each in group.resource.attributes}
            for span in (span for scope in group.scope_spans for span in scope.spans):
                attributes = {each.key: each.value.string_value for each in span.attributes}
                self.server.spans.append((resource, attributes | {"span": span.name, "path": self.path}))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as started:
        yield started
        started.shutdown()


@pytest.fixture(scope="module")
def workers(project: Path, collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    own = Path(shutil.copytree(project, tmp_path_factory.mktemp("workers") / "project"))
    shutil.rmtree(own / "logs", ignore_errors=True)
    traces = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
    server = Server.start(
        own,
        own / "home",
        SERVE_WORKERS=str(WORKERS),
        BENTOML_CONFIG_OVERRIDES=json.dumps(
            {"services": {"picture-classifier": {"logging": {"access": {"enabled": True}}}}}
        ),
        SERVE_DRAIN="0",
        SERVE_LOG_FORMAT="json",
        CAPTURE_SAMPLE_RATE="1",
        **traces,
    )
    yield server
    assert server.stop() == 0


def ask(server: Server, data: bytes, request_id: str) -> str:
    """The label, over a connection of its own, so that any worker may answer."""
    headers = {"X-Request-ID": request_id}
    label: str = httpx.post(f"{server.url}/predict", files={"image": data}, headers=headers, timeout=20).json()["label"]
    return label


@pytest.fixture(scope="module")
def asked(workers: Server, cat: bytes, dog: bytes) -> dict[str, bytes]:
    """Request ids and their pictures, asked until every worker answered some."""
    found: dict[str, bytes] = {}
    deadline = time.monotonic() + 30
    while len(request_files(workers.project / "logs")) < WORKERS and time.monotonic() < deadline:
        batch = {f"r{len(found) + number}": (cat, dog)[number % 2] for number in range(24)}
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(lambda item: ask(workers, item[1], item[0]), batch.items()))
        found |= batch
        time.sleep(0.2)
    assert len(request_files(workers.project / "logs")) == WORKERS
    return found


def test_every_worker_counts_and_any_tells_all(workers: Server, asked: dict[str, bytes]) -> None:
    with httpx.Client(base_url=workers.url) as client:
        samples = scrape(client)
    assert samples["classifier_predictions_total{label=cat,version=3}"] == len(asked) / 2
    assert samples["classifier_decode_seconds_count"] == len(asked)
    assert samples["classifier_waiting_limit"] == 128
    assert any("{endpoint=/feedback,http_response_code=504," in name for name in samples)  # also BentoML's own way
    assert sum(name.startswith("classifier_model_info") for name in samples) == 1


def test_feedback_reaches_any_worker(workers: Server, asked: dict[str, bytes], cat: bytes) -> None:
    for request_id, data in list(asked.items())[:12]:
        with httpx.Client(base_url=workers.url) as client:
            answer = say(client, request_id, "cat" if data == cat else "dog").raise_for_status().json()
            assert answer["correct"] is True
            assert scrape(client)["classifier_feedback_accuracy{version=3}"] == 1.0


def test_counters_go_on_when_a_worker_is_killed(workers: Server, asked: dict[str, bytes], cat: bytes) -> None:
    before_pids = children(workers.process.pid)
    with httpx.Client(base_url=workers.url) as client:
        before = scrape(client)
    os.kill(min(before_pids), signal.SIGKILL)
    after = before
    deadline = time.monotonic() + 30
    while len(children(workers.process.pid) - before_pids) < 1 or len(children(workers.process.pid)) < WORKERS:
        assert time.monotonic() < deadline
        with contextlib.suppress(httpx.TransportError):  # what the killed worker had accepted
            ask(workers, cat, "while-killed")
            with httpx.Client(base_url=workers.url) as client:
                after = scrape(client)
            assert all(after[name] >= value for name, value in before.items() if _is_counter(name))
            before = after
        time.sleep(0.1)
    assert after["classifier_decode_seconds_count"] > len(asked)


def _is_counter(name: str) -> bool:
    return name.partition("{")[0].endswith(("_total", "_count", "_sum", "_bucket"))


def test_kept_pictures_with_feedback_make_a_source_of_both_classes(
    workers: Server, asked: dict[str, bytes], cat: bytes, dog: bytes, tmp_path: Path
) -> None:
    logs = workers.project / "logs"
    with httpx.Client(base_url=workers.url) as client:
        for request_id, data in list(asked.items())[:12]:
            say(client, request_id, "cat" if data == cat else "dog").raise_for_status()
    done = export(latest(logs).values(), str(logs / "captured"), tmp_path / "out")
    assert done.pictures == {"cat": 1, "dog": 1}  # the same picture many times is one picture
    assert {path.read_bytes() for path in (tmp_path / "out").rglob("*.png")} == {cat, dog}


def test_every_line_the_server_prints_is_json(workers: Server, asked: dict[str, bytes]) -> None:
    lines = [json.loads(line) for line in workers.log.read_text().splitlines()]
    assert len(lines) > WORKERS
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)


def test_bentoml_s_access_log_can_be_switched_on(workers: Server, asked: dict[str, bytes]) -> None:
    lines = [json.loads(line) for line in workers.log.read_text().splitlines()]
    said = {line.get("request_id"): line["message"] for line in lines if line["logger"] == "bentoml.access"}
    assert said.keys() >= asked.keys()
    assert "POST" in said["r0"]


def test_a_proxy_that_is_trusted_tells_the_client_and_nobody_else_does(workers: Server) -> None:
    """By default those on this host are trusted, FORWARDED_ALLOW_IPS names others; 127.0.0.2 is not among them."""
    for number, source in enumerate(("127.0.0.1", "127.0.0.2")):
        with httpx.Client(transport=httpx.HTTPTransport(local_address=source), base_url=workers.url) as client:
            headers = {"X-Forwarded-For": "203.0.113.9", "X-Request-ID": f"proxied-{number}"}
            client.post("/predict", headers=headers | {"X-API-Key": "none"})
    lines = [json.loads(line) for line in workers.log.read_text().splitlines()]
    said = {line.get("request_id"): line["message"] for line in lines if line["logger"] == "bentoml.access"}
    assert said["proxied-0"].startswith("203.0.113.9")
    assert said["proxied-1"].startswith("127.0.0.2")


def test_requests_are_traced_with_their_ids(workers: Server, asked: dict[str, bytes], collector: Collector) -> None:
    for path in ("/metrics", "/readyz", "/livez", "/health", "/model"):
        httpx.get(workers.url + path, timeout=20).raise_for_status()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        spans = {span.get("request_id"): (resource, span) for resource, span in collector.spans}
        if asked.keys() <= spans.keys():
            break
        time.sleep(0.1)
    assert asked.keys() <= spans.keys()
    resource, span = spans["r0"]
    assert resource["service.name"] == "picture-classifier"
    assert (span["path"], span["span"]) == ("/v1/traces", "POST /predict")
    while not any(span["span"] == "GET /model" for _, span in collector.spans):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not {"GET /metrics", "GET /readyz", "GET /livez", "GET /health"} & {
        span["span"] for _, span in collector.spans
    }


def test_connections_are_shared_out_evenly(workers: Server, asked: dict[str, bytes], cat: bytes) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=workers.url)) for _ in range(2 * WORKERS)]
        for number, client in enumerate(clients):
            headers = {"X-Request-ID": f"even-{number}"}
            client.post("/predict", files={"image": cat}, headers=headers, timeout=20).raise_for_status()
            time.sleep(0.05)
    time.sleep(0.5)  # until they are written
    shares = [path.read_text().count('"even-') for path in request_files(workers.project / "logs")]
    assert sum(shares) == 2 * WORKERS
    assert max(shares) <= WORKERS / 2  # left to the system, one takes nearly all
