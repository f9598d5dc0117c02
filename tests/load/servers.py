"""The servers that the benchmark starts, one at a time: ours and its peers, all with the same weights."""

from __future__ import annotations

import ast
import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil

from tests.service.server import free_port
from training.common.cores import usable_cores
from training.common.errors import ExpectedError

ROOT = Path(__file__).parent.parent.parent
MODEL = ROOT / "models/model"
START_S = 120.0
MARK = "BENCH_ID"  # environment variable that all processes of a server inherit

Body = tuple[str, bytes]  # content type and bytes


class BenchError(ExpectedError):
    """The benchmark cannot be run; the message says what is missing."""


def form(name: str) -> Callable[[bytes], Body]:
    """A multipart form with the picture in the file field `name`."""
    disposition = f'Content-Disposition: form-data; name="{name}"; filename="p.jpg"'
    head = f"--bench\r\n{disposition}\r\nContent-Type: image/jpeg\r\n\r\n"
    return lambda picture: ("multipart/form-data; boundary=bench", head.encode() + picture + b"\r\n--bench--\r\n")


def v2(picture: bytes) -> Body:
    """The V2 inference protocol, as MLServer takes it."""
    tensor = {
        "name": "image",
        "shape": [1],
        "datatype": "BYTES",
        "parameters": {"content_type": "base64"},
        "data": [base64.b64encode(picture).decode()],
    }
    return "application/json", orjson.dumps({"inputs": [tensor]})


def invocation(picture: bytes) -> Body:
    """A data frame of one row, as MLflow's scoring server takes it."""
    rows = {"columns": ["image"], "data": [[base64.b64encode(picture).decode()]]}
    return "application/json", orjson.dumps({"dataframe_split": rows})


IMAGE_FORM = form("image")


@dataclass(frozen=True)
class Kind:
    """How one server is started and asked. `command` gets the port; `read` finds the probabilities in an answer."""

    name: str
    command: Callable[[int, Path], Sequence[str]]
    path: str = "/predict"
    body: Callable[[bytes], Body] = IMAGE_FORM
    read: Callable[[Any], list[float]] = lambda answer: answer["probabilities"]
    environment: dict[str, str] = field(default_factory=dict)
    packages: str = ".venv"

    def request(self, picture: bytes) -> bytes:
        """The whole HTTP request for a picture."""
        media, body = self.body(picture)
        head = (
            f"POST {self.path} HTTP/1.1",
            "Host: 127.0.0.1",
            f"Content-Type: {media}",
            f"Content-Length: {len(body)}",
        )
        return "\r\n".join((*head, "", "")).encode() + body


def _bentoml(service: str) -> Callable[[int, Path], Sequence[str]]:
    return lambda port, _: (_tool(".venv", "bentoml"), "serve", service, "--host", "127.0.0.1", "--port", str(port))


def _module(packages: str, name: str) -> Callable[[int, Path], Sequence[str]]:
    return lambda port, _: (_tool(packages, "python"), "-m", f"tests.load.peers.{name}")


def _mlserver(port: int, workspace: Path) -> Sequence[str]:
    settings = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port(), "host": "127.0.0.1"}
    settings |= {"parallel_workers": usable_cores(), "debug": False}
    model = {"name": "classifier", "implementation": "tests.load.peers.mlserver_runtime.Runtime"}
    (workspace / "settings.json").write_text(json.dumps(settings))
    (workspace / "model-settings.json").write_text(json.dumps(model))
    return _tool(".venv-mlserver", "mlserver"), "start", str(workspace)


def _mlflow(port: int, workspace: Path) -> Sequence[str]:
    options = ("--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", str(usable_cores()))
    return _tool(".venv", "mlflow"), "models", "serve", "-m", "models:/cats-vs-dogs@champion", *options


def _tool(packages: str, name: str) -> str:
    path = ROOT / packages / "bin" / name
    if not path.exists():
        raise BenchError(f"{path} is missing: `make bench` installs the peers")
    return str(path)


OURS = Kind(
    "this project",
    _bentoml("service:PictureClassifier"),
    read=lambda answer: list(answer["probabilities"].values()),
    environment={"MODEL_PATH": str(MODEL)},
)
UNWATCHED = replace(OURS, name="without watching", command=_bentoml("tests.load.unwatched:PictureClassifier"))


@dataclass(frozen=True)
class Machinery:
    """A piece of the service's own machinery, and the lines of Python that go with it."""

    what: str
    without: Kind
    lines: int


def _machinery(what: str, name: str, *sources: str, **settings: str) -> Machinery:
    """`sources` are files under training/serving/, or FILE:CLASS."""
    environment = OURS.environment | settings | ({"WITHOUT": name} if name else {})
    kind = replace(OURS, name=what, command=_bentoml("tests.load.ablations:PictureClassifier"), environment=environment)
    return Machinery(what, kind, sum(_lines(*source.partition(":")[::2]) for source in sources))


def _lines(file: str, name: str) -> int:
    text = (ROOT / "training/serving" / file).read_text()
    if not name:
        return len(text.splitlines())
    found = next(node for node in ast.walk(ast.parse(text)) if getattr(node, "name", None) == name)
    return int(found.end_lineno) - int(found.lineno) + 1  # type: ignore[attr-defined]


def _layout(workers: int, threads: int, batch: int) -> Kind:
    settings = {"SERVE_WORKERS": str(workers), "SERVE_THREADS": str(threads), "SERVE_MAX_BATCH": str(batch)}
    name = f"workers {workers}, threads {threads}, batches of {batch}"
    return replace(OURS, name=name, environment=OURS.environment | settings)


CORES = usable_cores()
LAYOUTS = (  # the first is what the service does by itself
    _layout(CORES, 1, 4),
    _layout(1, CORES, 4),
    _layout(CORES, CORES, 4),
    _layout(1, 1, 4),
    _layout(CORES, 1, 2),
    _layout(CORES, 1, 3),
    _layout(CORES, 1, 8),
)
MACHINERY = (
    _machinery(
        "one process of several threads",
        "",
        "connections/accepting.py",
        "connections/shared_counters.py",
        SERVE_WORKERS="1",
        SERVE_THREADS=str(CORES),
    ),
    _machinery(
        "processes that share nothing",
        "sharing",
        "connections/accepting.py",
        "connections/shared_counters.py",
        SERVE_THREADS="1",
    ),
    _machinery("a plain ThreadPoolExecutor", "own_threads", "threads.py"),
    _machinery("without the direct way", "direct_way", "bento/direct.py"),
    _machinery("BentoML's dispatcher", "dispatcher", "bento/batching.py:Dispatcher"),
    _machinery("without the pause after a refusal", "overload_pause", "connections/protocol.py:_is_shared"),
    _machinery("malloc as it comes", "memory_settings"),
)
PEERS = (
    Kind(  # as it comes: torch takes a thread for each core in each of uvicorn's threads
        "FastAPI + torch eager + Pillow",
        _module(".venv", "torch_eager"),
        environment={"OMP_NUM_THREADS": str(usable_cores())},
    ),
    Kind("FastAPI + torch eager + Pillow, OMP_NUM_THREADS=1", _module(".venv", "torch_eager")),
    Kind(
        "BentoML batchable API",
        _bentoml("tests.load.peers.bentoml_batchable:Batchable"),
        body=form("images"),
        read=lambda answer: answer[0],
    ),
    Kind("LitServe, batch 8", _module(".venv-peers", "litserve_batch")),
    Kind("Ray Serve, batch 8", _module(".venv-peers", "ray_serve")),
    Kind(
        "MLServer",
        _mlserver,
        path="/v2/models/classifier/infer",
        body=v2,
        read=lambda answer: answer["outputs"][0]["data"],
    ),
    Kind(
        "mlflow models serve",
        _mlflow,
        path="/invocations",
        body=invocation,
        read=lambda answer: [value for key, value in answer["predictions"][0].items() if key != "label"],
        environment={"MLFLOW_TRACKING_URI": f"sqlite:///{ROOT}/mlflow.db"},
    ),
)


@dataclass
class Running:
    """A started server; `start_seconds` until its first answer."""

    kind: Kind
    port: int
    mark: str
    start_seconds: float = 0.0

    def processes(self) -> list[psutil.Process]:
        """All processes of the server, whoever started them."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark:
                    found.append(process)
        return found

    def cpu_seconds(self) -> float:
        """Processor time that its living processes have used."""
        total = 0.0
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                used = process.cpu_times()
                total += used.user + used.system
        return total

    def megabytes(self) -> float:
        """Resident memory of all processes; pages that they share are shared out among them (PSS)."""
        total = 0.0
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss / 2**20
        return total

    def ask(self, picture: bytes) -> list[float]:
        """The probabilities it gives for a picture."""
        media, body = self.kind.body(picture)
        url = f"http://127.0.0.1:{self.port}{self.kind.path}"
        answer = httpx.post(url, content=body, headers={"Content-Type": media}, timeout=60)
        if answer.status_code != 200:
            raise BenchError(f"{self.kind.name} answers {answer.status_code}: {answer.text[:500]}")
        return self.kind.read(answer.json())


@contextlib.contextmanager
def running(kind: Kind, picture: bytes, **environment: str) -> Iterator[Running]:
    """Start the server, wait for its first answer, stop it and everything it started at the end."""
    server = Running(kind, free_port(), uuid.uuid4().hex)
    workspace = Path(tempfile.mkdtemp(prefix="bench-"))
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("SERVE_", "BENTOML", "API_KEYS"))
    }
    environ |= {"BENTOML_HOME": str(workspace / "bentoml"), "BENTOML_DO_NOT_TRACK": "true", "BENCH_MODEL": str(MODEL)}
    environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "BENCH_PORT": str(server.port), MARK: server.mark}
    environ["PATH"] = f"{ROOT / kind.packages / 'bin'}:{environ['PATH']}"
    log = workspace / "log"
    with log.open("wb") as file:
        begun = time.monotonic()
        process = subprocess.Popen(
            kind.command(server.port, workspace),
            cwd=ROOT,
            env=environ | kind.environment | environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        _wait(server, process, picture, log)
        server.start_seconds = time.monotonic() - begun
        yield server
    finally:
        _stop(server, process)
        shutil.rmtree(workspace, ignore_errors=True)


def _wait(server: Running, process: subprocess.Popen[bytes], picture: bytes, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            server.ask(picture)
            return
        except (httpx.TransportError, BenchError):
            time.sleep(0.05)
    raise BenchError(f"{server.kind.name} did not start:\n{log.read_text()[-2000:]}")


def _stop(server: Running, process: subprocess.Popen[bytes]) -> None:
    processes = server.processes()
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(processes, 15)
    for left in alive:
        with contextlib.suppress(psutil.Error):
            left.kill()
    process.wait(10)
