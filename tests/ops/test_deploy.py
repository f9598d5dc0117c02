"""deploy.py as it is run: onto a stand-in API server with the real kubectl, and onto a real Docker engine."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from k8s import docker, manifests, target
from tests.ops import cluster
from tests.ops.cluster import Cluster
from tests.ops.engine import Image
from tests.service.server import free_port
from tests.tiny import tiny_picture

ROOT = manifests.FOLDER.parent
BIN = Path(sys.executable).parent
MODEL = {
    "name": "cats-vs-dogs",
    "version": "3",
    "bento_tag": "cats-vs-dogs:0123456789abcdef",
    "data_hash": "d" * 64,
    "git_commit": "c" * 40,
}


def image(digit: str) -> str:
    return f"registry.example/cats-vs-dogs@sha256:{digit * 64}"


@dataclass
class Project:
    """A copy of what deploy.py needs of the project."""

    root: Path
    environment: dict[str, str]

    @classmethod
    def copy(cls, root: Path, **extra: str) -> Project:
        ignored = shutil.ignore_patterns("__pycache__")
        for name in ("k8s", "training", "tests/smoke"):
            shutil.copytree(ROOT / name, root / name, ignore=ignored)
        return cls(root, os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"} | extra)

    def deploy(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*words), env=self.environment, capture_output=True, text=True, timeout=120)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, str(self.root / "k8s/deploy.py"), *words]

    def records(self) -> list[dict[str, Any]]:
        path = self.root / "models/deployments.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def pinned(self) -> str:
        deployment = manifests.find(manifests.load(self.root / "k8s"), "Deployment")
        return str(manifests.container(deployment)["image"])


class Lineage(BaseHTTPRequestHandler):
    """A service of which only /health works: ready, and wrong in every other respect."""

    def do_GET(self) -> None:
        known = self.path == "/health"
        body = json.dumps({"status": "ok", "model": MODEL}).encode() if known else b"{}"
        self.send_response(200 if known else 500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Lineage)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[Cluster]:
    with cluster.running(tmp_path / "kubeconfig") as found:
        yield found


@pytest.fixture
def project(tmp_path: Path, stand_in: Cluster, service: str) -> Project:
    made = Project.copy(tmp_path / "project", KUBECONFIG=str(tmp_path / "kubeconfig"), DEPLOY_URL=service)
    way = cluster.kubectl_with_a_way_in(tmp_path / "bin", service)
    made.environment["PATH"] = f"{way}{os.pathsep}{made.environment['PATH']}"
    return made


UNTESTED = ("--type", "k8s", "--no-tests")
NOWHERE = "http://127.0.0.1:9"  # where users would ask, and nobody answers


def test_a_version_is_tested_out_of_sight_and_then_rolled_out(project: Project, stand_in: Cluster) -> None:
    """One cluster's life, for a roll-out takes seconds: good, refused, failed and interrupted ones, and a rollback."""
    first = project.deploy(*UNTESTED, "--image", image("1"))
    assert first.returncode == 0, first.stderr
    assert "cats-vs-dogs version 3 (cats-vs-dogs:0123456789abcdef) answers" in first.stdout
    assert project.pinned() == stand_in.image() == image("1")
    assert manifests.base(project.root / "k8s") == (project.root / "k8s" / manifests.BASE).read_text()
    made = {(one["kind"], one["metadata"]["name"]) for one in stand_in.objects.values()}
    assert {(one["kind"], one["metadata"]["name"]) for one in manifests.load()} <= made

    # The image cannot be pulled, the smoke tests fail: nobody has met them.
    stand_in.broken.add(image("2"))
    never = project.deploy(*UNTESTED, "--image", image("2"), "--timeout", "100")
    assert never.returncode == 1
    assert f"ErrImagePull: {image('2')}: not found; {image('1')} runs on" in never.stderr
    useless = project.deploy("--type", "k8s", "--image", image("3"))
    assert useless.returncode == 1
    assert "FAIL  known pictures" in useless.stdout
    assert f"the smoke tests failed, see above; {image('1')} runs on, no request has met the new one" in useless.stderr

    # Another deployer is at work.
    lease = stand_in.objects["leases", "classifier-deploy"]
    assert "holderIdentity" not in lease["spec"]
    lease["spec"]["holderIdentity"] = "ada@laptop-1"
    refused = project.deploy(*UNTESTED, "--image", image("2"), "--timeout", "1")
    assert refused.returncode == 1
    assert "ada@laptop-1 is still rolling out in cats-vs-dogs" in refused.stderr
    del lease["spec"]["holderIdentity"]

    # A person has set image and settings since; the new version fails where users are: theirs come back.
    by_hand = ["--namespace", manifests.NAMESPACE, "set", "image", "deployment/classifier", f"classifier={image('4')}"]
    subprocess.run(["kubectl", *by_hand], env=project.environment, check=True, capture_output=True)
    stand_in.objects["configmaps", "classifier"]["data"]["SERVE_DRAIN"] = "12"
    url, project.environment["DEPLOY_URL"] = project.environment["DEPLOY_URL"], NOWHERE
    failed = project.deploy(*UNTESTED, "--image", image("5"))
    assert failed.returncode == 1
    assert f"{NOWHERE}/health does not say which model is served" in failed.stderr
    assert f"rolled back: {image('4')} runs again" in failed.stderr
    assert stand_in.objects["configmaps", "classifier"]["data"]["SERVE_DRAIN"] == "12"
    assert project.pinned() == image("1")
    project.environment["DEPLOY_URL"] = url

    back = project.deploy(*UNTESTED, "--rollback")
    assert (back.returncode, "has no previous image" in back.stderr) == (1, True)
    assert project.deploy(*UNTESTED, "--image", image("6")).returncode == 0
    back = project.deploy(*UNTESTED, "--rollback")
    assert back.returncode == 0, back.stderr
    assert project.pinned() == stand_in.image() == image("4")
    assert stand_in.candidates == [image(digit) for digit in "123564"]
    assert stand_in.images == [image(digit) for digit in "145464"]
    assert not [one for one in stand_in.lists("pods") if "candidate" in one["metadata"]["name"]]
    told = "".join(one["digest"][7] + one["result"][0] for one in project.records())
    assert told == "1d2f3f5f6d4d"


def test_a_first_deployment_that_fails_leaves_none(project: Project, stand_in: Cluster) -> None:
    failed = project.deploy("--type", "k8s", "--image", image("1"))
    assert failed.returncode == 1
    assert "nothing runs, as before" in failed.stderr
    assert stand_in.images == []
    path = project.root / "k8s/service.yaml"
    path.write_text(path.read_text().replace("targetPort", "targetProt"))
    refused = project.deploy(*UNTESTED, "--image", image("2"))
    assert refused.returncode == 1
    assert "strict decoding error" in refused.stderr
    assert stand_in.candidates == [image("1")]


def test_a_dry_run_changes_nothing(project: Project, stand_in: Cluster) -> None:
    rehearsed = project.deploy("--type", "k8s", "--image", image("1"), "--dry-run")
    assert rehearsed.returncode == 0, rehearsed.stderr
    assert "namespace/cats-vs-dogs serverside-applied (server dry run)" in rehearsed.stdout
    assert not stand_in.objects
    assert not project.records()


def test_plain_apply_works_the_first_time_and_again(project: Project, stand_in: Cluster) -> None:
    apply = ["kubectl", "apply", "-f", str(project.root / "k8s")]
    done = [subprocess.run(apply, env=project.environment, capture_output=True, text=True) for _ in range(2)]
    assert [one.returncode for one in done] == [0, 0], done
    assert "deployment.apps/classifier unchanged" in done[1].stdout
    assert {one["kind"] for one in manifests.load()} <= {one["kind"] for one in stand_in.objects.values()}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--image", "cats-vs-dogs@sha256:12"), "name it by digest"),
        ((), "names no released image yet"),
        (("--rollback", "--image", image("1")), "leave out --image"),
        (("--rollback",), "has no previous image"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is(
    project: Project, stand_in: Cluster, words: tuple[str, ...], message: str
) -> None:
    path = project.root / "k8s/deployment.yaml"
    path.write_text(path.read_text().replace(project.pinned(), f"cats-vs-dogs{manifests.UNRELEASED}"))
    refused = project.deploy("--type", "k8s", *words)
    assert refused.returncode in (1, 2)
    assert message in refused.stderr
    assert not stand_in.images + stand_in.candidates
    assert not project.records()


def test_one_roll_out_at_a_time(tmp_path: Path) -> None:
    project = Project.copy(tmp_path / "project")
    descriptor = os.open(project.root / "k8s", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    busy = project.deploy("--type", "k8s")
    os.close(descriptor)
    assert (busy.returncode, "another deploy.py is running" in busy.stderr) == (1, True)


def test_a_container_runs_as_the_pod_template_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEYS", "secret")
    objects = manifests.load()
    template = manifests.find(objects, "Deployment")["spec"]["template"]["spec"]
    options = " ".join(docker.pod_options(template, manifests.find(objects, "ConfigMap")["data"]))
    for expected in (
        "--user 1034:1034",
        "--memory 1G",
        "--env SERVE_DRAIN=10",
        "--env BENTOML_HOME=/var/lib/bentoml",
        "--tmpfs /tmp:size=256M,uid=1034,gid=1034,mode=0700",
        "--volume classifier-logs:/logs",
        "--env API_KEYS",
    ):
        assert expected in options
    assert "secret" not in options


def test_kept_pictures_lie_in_one_folder_for_all_containers() -> None:
    """So that the running one deletes those of its predecessors when they are too old."""
    machine, image = docker.Docker(), target.Image("name", f"sha256:{'a' * 64}", "reference", {})
    words = " ".join(machine._run_words(image))
    assert "--env CAPTURE_URL=/logs/captured " in words
    assert f"--env SERVE_LOG_DIR=/logs/classifier-{'a' * 12}-" in words
    machine.config["CAPTURE_URL"] = "s3://bucket/folder"
    assert "--env CAPTURE_URL=s3://bucket/folder " in " ".join(machine._run_words(image))


@dataclass
class Load:
    """Two clients that ask /predict without a pause, one on a kept connection, until `end`."""

    url: str
    picture: bytes
    answers: Counter[int | str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self._ask, args=(kept,)) for kept in (True, False)]
        for thread in self.threads:
            thread.start()

    def _ask(self, kept: bool) -> None:
        with httpx.Client(timeout=30) as client:
            while not self.over.is_set():
                post = client.post if kept else httpx.post
                try:
                    answer = post(f"{self.url}/predict", content=self.picture, headers={"Content-Type": "image/png"})
                    self.answers[answer.status_code] += 1
                except httpx.TransportError as error:
                    self.answers[repr(error)] += 1

    def end(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()


def variant(base: str, tag: str, setting: str) -> str:
    """An image like `base` but for one variable of the environment."""
    text = f"FROM {base}\nENV {setting}\n"
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", tag, "-"], input=text, text=True, check=True, capture_output=True
    )
    return tag


@pytest.fixture
def shipped(tmp_path: Path) -> Iterator[str]:
    """The image to deploy: DEPLOY_IMAGE, or one of a tiny champion."""
    if "DEPLOY_IMAGE" in os.environ:
        yield os.environ["DEPLOY_IMAGE"]
    else:
        made = Image.make(tmp_path / "image/project", f"deploy-test:{os.getpid()}")
        yield made.tag
        subprocess.run(["docker", "image", "rm", "--force", made.tag], check=True, capture_output=True)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Project]:
    """deploy.py onto this machine's engine, with names and a port of its own."""
    name = f"deploy-test-{os.getpid()}"
    project = Project.copy(tmp_path / "project", DEPLOY_NAME=name, DEPLOY_PORT=str(free_port()))
    if "DEPLOY_IMAGE" not in os.environ:
        project.environment["SMOKE_PICTURES"] = str(tmp_path / "pictures")
        for number, label in enumerate(("cat", "dog")):
            (tmp_path / "pictures" / label).mkdir(parents=True)
            (tmp_path / "pictures" / label / "1.png").write_bytes(tiny_picture(number, 1))
    yield project
    listed = subprocess.run(
        ["docker", "ps", "--all", "--quiet", "--filter", f"name=^{name}-"], capture_output=True, text=True, check=True
    )
    subprocess.run(["docker", "rm", "--force", *listed.stdout.split()], check=True, capture_output=True)
    networks = [f"{name}-{part}" for part in ("front", "live", "candidate")]
    subprocess.run(["docker", "network", "rm", *networks], check=True, capture_output=True)
    subprocess.run(["docker", "volume", "rm", "--force", f"{name}-logs"], check=True, capture_output=True)


@pytest.mark.needs("docker")
@pytest.mark.timeout(900)  # the first build on a machine downloads the packages
def test_no_request_fails_while_one_container_takes_over_from_another(shipped: str, engine: Project) -> None:
    """First image; then under load one that fails its tests, a second image, and back."""
    first = shipped
    useless = variant(first, "deploy-test:useless", "SERVE_MIN_SIDE=4096")
    second = variant(first, "deploy-test:second", "VARIANT=second")
    to_docker = ("--type", "docker")
    done = engine.deploy(*to_docker, "--image", first)
    assert done.returncode == 0, done.stdout + done.stderr
    picture = next((ROOT / "tests/smoke/pictures/cat").iterdir()).read_bytes()
    load = Load(f"http://127.0.0.1:{engine.environment['DEPLOY_PORT']}", picture)
    try:
        failed = engine.deploy(*to_docker, "--image", useless)
        replaced = engine.deploy(*to_docker, "--image", second)
        back = engine.deploy(*to_docker, "--rollback")
    finally:
        load.end()
    assert (failed.returncode, "the smoke tests failed" in failed.stderr) == (1, True), failed.stdout + failed.stderr
    assert (replaced.returncode, back.returncode) == (0, 0), replaced.stderr + back.stderr
    assert load.answers.keys() == {200}, load.answers
    digests = [one["digest"] for one in engine.records()]
    assert digests[0] == digests[3] != digests[2]
    again = engine.deploy(*to_docker, "--rollback")
    assert (again.returncode, "no previous container" in again.stderr) == (1, True)
