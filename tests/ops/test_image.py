"""The image: its names and labels; on a Docker engine also its contents and size, and that it serves, locked down."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tarfile
import time
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

import httpx
import pytest
from packaging.requirements import Requirement

from monitoring.shift import TESTS
from tests.ops.engine import Container, Image, docker
from tests.ops.local_stack import REQUIRED, compose
from tests.service.server import ROOT, two_free_ports
from tests.tiny import tiny_picture
from training import image as module
from training.image import ImageError, labels, version
from training.model.pin import Champion

MAX_UNPACKED = 600e6
MAX_COMPRESSED = 200e6
SOURCE = "home/bentoml/bento/src"
STACK = f"picture-classifier-test-{uuid.uuid4().hex[:8]}"
UNCHECKED_HASH = 1  # the flags of a .pyc file, PEP 552
WINDOW = 60  # pictures, more than drift.min_pictures
FORBIDDEN = ("gcc", "g++", "cc", "make", "git", "uv", "pytest", "mlflow", "dvc")
PIN = Champion("cats-vs-dogs", "cats-vs-dogs:0123456789abcdef", "3", "a" * 32, "0123456789abcdef" * 4)

pytestmark = pytest.mark.timeout(900)  # the first build on a machine downloads the packages


def test_the_tag_names_version_model_and_commit() -> None:
    assert version(PIN, "b" * 40) == "3-01234567-bbbbbbbbbbbb"
    assert version(PIN, "b" * 40 + "-dirty") == "3-01234567-bbbbbbbbbbbb-dirty"


def test_outside_git_an_image_claims_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    found = labels(PIN)
    assert "org.opencontainers.image.revision" not in found
    assert found["model.sha256"] == PIN.model_sha256


def test_a_build_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "revision", lambda: "b" * 40)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ImageError, match="bentoml is not installed"):
        module.build(PIN)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    made = Image.make(tmp_path_factory.mktemp("image") / "project", f"picture-classifier-test:{uuid.uuid4().hex}")
    yield made
    docker("image", "rm", "--force", made.tag)


@pytest.fixture(scope="module")
def container(image: Image) -> Iterator[Container]:
    started = image.run("--health-interval", "1s", "--env", "CAPTURE_SAMPLE_RATE=1")
    yield started
    docker("rm", "--force", started.name)


@pytest.mark.needs("docker")
def test_labels_user_and_health_check(image: Image) -> None:
    config = json.loads(docker("image", "inspect", "--format", "{{json .Config}}", image.tag))
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=image.project, capture_output=True, text=True).stdout
    card = json.loads((image.project / "models/model/model_card.json").read_text())
    assert config["Labels"] == {
        "org.opencontainers.image.title": "cats-vs-dogs",
        "org.opencontainers.image.licenses": "MIT",
        "org.opencontainers.image.created": "2026-01-01T00:00:00+00:00",
        "org.opencontainers.image.base.name": "python:3.11-slim",
        "org.opencontainers.image.revision": commit.strip(),
        "org.opencontainers.image.version": version(image.pin, commit),
        "model.name": image.pin.name,
        "model.version": image.pin.mlflow_version,
        "model.bento_tag": image.pin.bento_tag,
        "model.run_id": image.pin.run_id,
        "model.sha256": image.pin.model_sha256,
        "model.data_hash": card["lineage"]["data_hash"],
        "model.git_commit": card["lineage"]["git_commit"],
    }
    assert config["User"] == "1034:1034"
    assert list(config["ExposedPorts"]) == ["3000/tcp"]
    assert config["Healthcheck"]["Test"][:2] == ["CMD", "python"]
    assert not [variable for variable in config["Env"] if "." in variable.partition("=")[0]]


@dataclass(frozen=True)
class Contents:
    """All files of an image by path: what they are, the SHA-256 of their bytes, and the flags of bytecode."""

    members: dict[str, tarfile.TarInfo]
    digests: dict[str, str]
    flags: dict[str, int]

    @classmethod
    def of(cls, tag: str) -> Contents:
        found = cls({}, {}, {})
        name = docker("create", tag)
        try:
            with (
                subprocess.Popen(["docker", "export", name], stdout=subprocess.PIPE) as exporting,
                tarfile.open(fileobj=exporting.stdout, mode="r|") as files,
            ):
                for member in files:
                    found._add(member, files.extractfile(member) if member.isreg() else None)
            assert exporting.returncode == 0
        finally:
            docker("rm", name)
        return found

    def _add(self, member: tarfile.TarInfo, file: IO[bytes] | None) -> None:
        data = file.read() if file else b""
        self.members[member.name] = member
        self.digests[member.name] = hashlib.sha256(data).hexdigest()
        if member.name.endswith(".pyc"):
            self.flags[member.name] = int.from_bytes(data[4:8], "little")

    def facts(self, path: str) -> tuple[Any, ...]:
        """What makes the file what it is; not the time of its last change."""
        member = self.members[path]
        return member.type, member.mode, member.uid, member.gid, member.linkname, self.digests[path]


@pytest.fixture(scope="module")
def contents(image: Image) -> Contents:
    return Contents.of(image.tag)


@pytest.mark.needs("docker")
def test_the_same_inputs_give_the_same_files(image: Image, contents: Contents) -> None:
    """Bento and image built anew, without the cache: BentoML notes the time in bento.yaml, all else is the same."""
    [bento] = (path for path in (image.project.parent / "home/bentos/cats-vs-dogs").iterdir() if path.is_dir())
    shutil.rmtree(bento)
    again = replace(image, tag=f"{image.tag}-again")
    again.build("--opt", "no-cache")
    try:
        found = Contents.of(again.tag)
    finally:
        docker("image", "rm", "--force", again.tag)
    assert found.members.keys() == contents.members.keys()
    differing = {path for path in found.members if found.facts(path) != contents.facts(path)}
    assert differing == {"home/bentoml/bento/bento.yaml"}


@pytest.mark.needs("docker")
def test_it_holds_no_tools_tests_or_training_code(contents: Contents) -> None:
    paths = [PurePosixPath(path) for path in contents.members]
    assert not {path.name for path in paths if path.parent.name in ("bin", "sbin")} & set(FORBIDDEN)
    packages = {path.name for path in paths if path.parent.name == "site-packages"}
    assert "onnxruntime" in packages
    assert not packages & {"torch", "mlflow", "dvc", "pytest", "pip"}
    assert not [path for path in paths if path.is_relative_to("opt/venv") and path.name == "tests"]
    modules = {path.stem for path in paths if path.is_relative_to(f"{SOURCE}/training") and path.suffix == ".py"}
    assert {"classifier", "startup"} <= modules
    assert not modules & {"train", "evaluate", "promote", "register", "image"}
    rooms = {path.parent.name for path in paths if path.is_relative_to(f"{SOURCE}/training") and path.suffix == ".py"}
    assert rooms == {"training", "common", "model", "serving", "api", "bento", "connections", "records"}


@pytest.mark.needs("docker")
def test_its_user_can_change_nothing_but_its_log_folder(contents: Contents) -> None:
    own = [path for path, member in contents.members.items() if member.uid == 1034]
    open_to_all = [path for path, member in contents.members.items() if member.isreg() and member.mode & 0o002]
    assert own == ["logs"]
    assert not open_to_all


@pytest.mark.needs("docker")
def test_bytecode_is_there_and_never_compared_with_its_source(contents: Contents) -> None:
    """So that a start from a read-only root compiles nothing, and every build gives the same bytes."""
    served = {path: flags for path, flags in contents.flags.items() if path.startswith(("opt/venv/", SOURCE))}
    assert set(served.values()) == {UNCHECKED_HASH}
    for path in (f"{SOURCE}/service.py", f"{SOURCE}/training/model/classifier.py"):
        assert importlib.util.cache_from_source(path) in served
    standard = [path for path in contents.flags if path.endswith("/json/__pycache__/decoder.cpython-311.pyc")]
    assert [contents.flags[path] for path in standard] == [UNCHECKED_HASH]


@pytest.mark.needs("docker")
def test_size(image: Image) -> None:
    """Compressed at level 1, which is less than any registry's."""
    assert module.size(image.tag) <= MAX_UNPACKED
    packer, total = zlib.compressobj(1), 0
    with subprocess.Popen(["docker", "save", image.tag], stdout=subprocess.PIPE) as saving:
        assert saving.stdout is not None
        while piece := saving.stdout.read(1 << 20):
            total += len(packer.compress(piece))
    assert saving.returncode == 0
    assert total <= MAX_COMPRESSED


@pytest.mark.needs("docker")
def test_it_serves_its_model_from_a_read_only_root(container: Container, image: Image) -> None:
    container.wait_ready()
    with httpx.Client(base_url=container.url, timeout=20) as client:
        answer = client.post("/predict?abstain=false", files={"image": tiny_picture(1, 7, noise=0.0)}).json()
        health = client.get("/health").json()
    assert answer["label"] == "dog"
    assert answer["model"] == health["model"]
    assert health["source"] == "champion"
    assert health["model"]["run_id"] == image.pin.run_id
    assert health["model"]["bento_tag"] == image.pin.bento_tag
    time.sleep(0.5)  # until it is written
    assert docker("exec", container.name, "sh", "-c", "cat /tmp/logs/requests-*.jsonl").count(answer["request_id"]) == 1
    assert docker("exec", container.name, "id", "-u") == "1034"
    assert docker("exec", container.name, "sh", "-c", "touch /here 2>/dev/null || echo refused") == "refused"


@pytest.mark.needs("docker")
def test_pictures_are_kept_beside_the_log_though_the_root_is_read_only(container: Container) -> None:
    container.wait_ready()
    with httpx.Client(base_url=container.url, timeout=20) as client:
        client.post("/predict", files={"image": tiny_picture(0, 8)}).raise_for_status()
        deadline = time.monotonic() + 20
        while not (outcomes := _captures(client.get("/metrics").text))["stored"]:
            assert time.monotonic() < deadline, outcomes
            time.sleep(0.1)
    assert {outcome for outcome, count in outcomes.items() if count} == {"stored"}
    digest = hashlib.sha256(tiny_picture(0, 8)).hexdigest()
    assert f"{digest}.png" in docker("exec", container.name, "sh", "-c", "ls /tmp/logs/captured/*")


def _captures(page: str) -> dict[str, float]:
    counted = re.findall(r'^classifier_captures_total\{outcome="(\w+)"\} (\S+)$', page, re.MULTILINE)
    return {outcome: float(count) for outcome, count in counted}


@pytest.mark.needs("docker")
def test_a_worker_that_died_is_replaced(container: Container) -> None:
    def workers() -> set[str]:
        return set(docker("exec", container.name, "cat", "/proc/1/task/1/children").split())

    container.wait_ready()
    before = workers()
    victim = min(before)
    docker("exec", container.name, "python", "-c", f"import os; os.kill({victim}, 9)")
    deadline = time.monotonic() + 30
    while victim in workers() or len(workers()) < len(before):
        assert time.monotonic() < deadline, container.logs()
        time.sleep(0.2)
    container.wait_ready()


@pytest.mark.needs("docker")
def test_docker_calls_it_healthy_and_a_stop_is_orderly(container: Container) -> None:
    container.wait_ready()
    deadline = time.monotonic() + 30
    while container.state("Health.Status") != "healthy":
        assert time.monotonic() < deadline, container.state("Health")
        time.sleep(0.2)
    docker("stop", "--time", "30", container.name)
    assert container.state("ExitCode") == "0"
    assert container.state("OOMKilled") == "false"


@pytest.mark.needs("docker")
def test_the_same_commit_and_model_are_not_built_again(image: Image) -> None:
    bento = image.project.parent / "home/bentos/cats-vs-dogs"
    [built] = [path for path in bento.iterdir() if path.is_dir()]
    before = (built / "bento.yaml").stat().st_mtime_ns
    assert f"image {image.tag}: version 3 of cats-vs-dogs" in image.build()
    assert (built / "bento.yaml").stat().st_mtime_ns == before


@pytest.mark.needs("docker")
def test_the_sbom_lists_every_locked_package(image: Image, tmp_path: Path) -> None:
    """By the command of `make sbom`."""
    [command] = re.findall(r"^\t.*(syft scan .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    command = re.sub(r"\$\(or .*\)\)", image.tag, command)
    quiet = os.environ | {"SYFT_CHECK_FOR_APP_UPDATE": "false"}
    subprocess.run(command.split(), cwd=tmp_path, check=True, env=quiet)
    sbom = json.loads((tmp_path / "sbom.cdx.json").read_text())
    assert sbom["bomFormat"] == "CycloneDX"
    listed = {f"{one['name']}=={one['version']}".lower().replace("_", "-") for one in sbom["components"]}
    lock = (ROOT / "requirements-serve.lock").read_text()
    locked = [Requirement(row) for row in re.findall(r"^[\w.-]+==[^\\\n]+", lock, re.MULTILINE)]
    here = {f"{one.name}{one.specifier}" for one in locked if one.marker is None or one.marker.evaluate()}
    assert len(here) > 50
    assert here <= listed


@pytest.fixture
def stack(image: Image) -> Iterator[dict[str, str]]:
    """Variables of a local stack with this image; it is taken down at the end."""
    first, second = two_free_ports()
    variables = {"CLASSIFIER_PORT": f"{first}-{second}", "CLASSIFIER_IMAGE": image.tag, "DRIFT_EVERY": "5"}
    variables = REQUIRED | variables
    yield variables
    compose("down", "--volumes", "--timeout", "20", project=STACK, **variables)


@pytest.mark.needs("docker")
def test_service_and_drift_check_work_together_in_the_local_stack(stack: dict[str, str]) -> None:
    """The images of the others cannot be had everywhere; these two are made here. The service has two replicas."""
    command = ("up", "--detach", "--wait", "--wait-timeout", "120", "--scale", "classifier=2", "classifier", "drift")
    done = compose(*command, project=STACK, **stack)
    assert done.returncode == 0, done.stderr + compose("logs", project=STACK, **stack).stdout
    one, other = (f"http://127.0.0.1:{port}" for port in stack["CLASSIFIER_PORT"].split("-"))
    answer = _predict(one, tiny_picture(0, 7, noise=0.0))
    assert answer.status_code == 200
    deadline = time.monotonic() + 20  # the log is written a moment after the answer
    while answer.json()["request_id"] not in (told := _logged(stack)).stdout:
        assert time.monotonic() < deadline, told
        time.sleep(0.2)
    said = {"request_id": answer.json()["request_id"], "label": "cat"}
    assert httpx.post(f"{other}/feedback", json=said, timeout=20).status_code == 200  # the other replica knows it
    for number in range(WINDOW):
        _predict((one, other)[number % 2], tiny_picture(number % 2, 9000 + number)).raise_for_status()
    for url in (one, other):
        assert _drift_scores(url) == set(TESTS)
    shown = compose("ps", "--format", "json", project=STACK, **stack).stdout
    states = [(state["Service"], state["State"]) for state in map(json.loads, shown.splitlines())]
    assert sorted(states) == [("classifier", "running"), ("classifier", "running"), ("drift", "running")]


def _predict(url: str, picture: bytes) -> httpx.Response:
    return httpx.post(f"{url}/predict", files={"image": picture}, timeout=20)


def _drift_scores(url: str) -> set[str]:
    """The properties that a replica's metrics tell the drift of, once the check has seen enough pictures."""
    deadline = time.monotonic() + 60
    while True:
        page = httpx.get(f"{url}/metrics", timeout=20).text
        scores = re.findall(r'^classifier_drift_score\{property="(\w+)",version="3"\} ', page, re.MULTILINE)
        if scores:
            return set(scores)
        assert time.monotonic() < deadline, page
        time.sleep(0.5)


def _logged(stack: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What the drift check's container sees of the request log."""
    return compose("exec", "-T", "drift", "sh", "-c", "cat /logs/requests-*.jsonl", project=STACK, **stack)
