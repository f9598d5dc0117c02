"""The release workflow, run for real on this machine by act: its own commands build an image from the registry's
champion, push it to a real registry and roll it out with the real kubectl.

Not real are GitHub's own actions (each is a small one that checks what it is given, see STAND_INS), and the cluster:
the API server is a stand-in, so the service that the smoke tests ask is started beside it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from tests.ops import cluster as stand_in_cluster
from tests.parts import REGISTRY
from tests.pipeline.acting import promoted
from tests.service.server import Server, copy_project, make_champion
from tests.tiny import tiny_picture, tiny_project
from training import install

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
WORKFLOW = ROOT / ".github/workflows/release.yml"
pytestmark = pytest.mark.needs("docker", "registry", "git-tree")
IMAGE = f"{REGISTRY}/act/cats-vs-dogs"
DIGEST = re.compile(rf"{IMAGE}@sha256:[0-9a-f]{{64}}")
IDENTITY = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
STAND_INS = {  # what stands for an action: a command over its inputs
    "actions/checkout": "true",
    "actions/setup-python": "true",
    "actions/upload-artifact": 'test -f "$INPUT_PATH"',
    "actions/attest": '[[ $INPUT_SUBJECT_DIGEST == sha256:* ]] && jq -e .components "$INPUT_SBOM_PATH" > /dev/null',
    "actions/attest-build-provenance": "[[ $INPUT_SUBJECT_NAME@$INPUT_SUBJECT_DIGEST == */*@sha256:* ]]",
    "docker/login-action": 'test -n "$INPUT_REGISTRY"',
    "sigstore/cosign-installer": """
        mkdir -p cosign && printf '#!/bin/sh\\necho "cosign $*"\\n' > cosign/cosign && chmod +x cosign/cosign
        echo "$PWD/cosign" >> "$GITHUB_PATH"
    """,
}


@dataclass
class Stage:
    """A clone of the project and all that its release workflow talks to."""

    project: Path
    tools: Path
    tracking_uri: str
    kubeconfig: str
    service: str

    def act(self, url: str, **smoke: str) -> subprocess.CompletedProcess[str]:
        """A push to main; users reach the service at `url`."""
        variables = {"IMAGE": IMAGE, "REGISTRY": REGISTRY, "MLFLOW_TRACKING_URI": self.tracking_uri, "SERVICE_URL": url}
        variables["PLATFORMS"] = "linux/amd64"  # what this machine can build
        given = {"BENTOML_HOME": str(self.tools / "bentoml"), "PIP_DRY_RUN": "1", "DEPLOY_URL": self.service} | smoke
        words = ["--platform", "ubuntu-24.04=-self-hosted", "--action-cache-path", str(self.tools / "cache")]
        words += ["--no-cache-server", "--action-offline-mode", "--use-gitignore=false"]
        words += [word for name, value in variables.items() for word in ("--var", f"{name}={value}")]
        words += [word for name, value in given.items() for word in ("--env", f"{name}={value}")]
        words += ["--secret", f"KUBECONFIG={self.kubeconfig}", "--workflows", ".github/workflows/release.yml"]
        for use in re.findall(r"uses: (\S+@\S+)", WORKFLOW.read_text()):
            words += ["--local-repository", f"{use}={self.tools / use.partition('@')[0]}"]
        path = os.pathsep.join((str(self.tools / "kubectl"), str(BIN), "/usr/bin", os.environ["PATH"]))
        return subprocess.run(
            [BIN / "act", "push", *words],
            cwd=self.project,
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            timeout=280,
        )

    def kubectl(self, *words: str) -> str:
        config = self.tools / "kubeconfig"
        command = [str(BIN / "kubectl"), "--kubeconfig", str(config), "--namespace", "cats-vs-dogs", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def running(self) -> str:
        """The image that the cluster runs."""
        return self.kubectl(
            "get", "deployment", "classifier", "-o", "jsonpath={.spec.template.spec.containers[0].image}"
        )

    def commit(self, message: str) -> None:
        subprocess.run(["git", "add", "--all"], cwd=self.project, check=True)
        command = ["git", *IDENTITY, "commit", "--quiet", "--allow-empty", "--message", message]
        subprocess.run(command, cwd=self.project, check=True)


def clone(target: Path) -> Path:
    """The project as it is here, uncommitted changes too, with its dependencies in place: nothing to do for `make`."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0"):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    (target / ".venv").mkdir()
    for part in Path(sys.prefix).iterdir():
        (target / ".venv" / part.name).symlink_to(part)
    (target / ".venv/installed").unlink(missing_ok=True)
    install.wanted(target / ".venv", "any").write(target / ".venv")
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "main"], cwd=target, check=True)
    return target


def stand_in(folder: Path, command: str) -> None:
    """A composite action of one command that sees its inputs as INPUT_NAME."""
    inputs = ("path", "registry", "subject-name", "subject-digest", "sbom-path")
    environment = {f"INPUT_{name.upper().replace('-', '_')}": f"${{{{ inputs.{name} }}}}" for name in inputs}
    action = {
        "name": folder.name,
        "inputs": {name: {"required": False} for name in inputs},
        "runs": {"using": "composite", "steps": [{"run": command, "shell": "bash", "env": environment}]},
    }
    folder.mkdir(parents=True)
    (folder / "action.yml").write_text(yaml.safe_dump(action))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A kubeconfig, in one line, for a stand-in API server."""
    path = tmp_path_factory.mktemp("kubeconfig") / "kubeconfig"
    with stand_in_cluster.running(path):
        yield json.dumps(yaml.safe_load(path.read_text()))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, cluster: str) -> Iterator[Stage]:
    root = tmp_path_factory.mktemp("release")
    for action, command in STAND_INS.items():
        stand_in(root / "tools" / action, command)
    (root / "tools/kubeconfig").write_text(cluster)
    trained = tiny_project(root / "trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained)
        patch.setenv("BENTOML_HOME", str(root / "bentoml"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{trained}/mlflow.db")
        promoted(trained, skill=1.0)
    served = copy_project(root / "served")
    make_champion(served, root / "served/bentoml")
    server = Server.start(served, root / "served/bentoml")
    stand_in_cluster.kubectl_with_a_way_in(root / "tools/kubectl", server.url)
    project = clone(root / "project")
    stage = Stage(project, root / "tools", f"sqlite:///{trained}/mlflow.db", cluster, server.url)
    stage.commit("as it is")
    yield stage
    server.stop()
    listed = ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", IMAGE]
    tags = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()
    if tags:
        subprocess.run(["docker", "image", "rm", *tags], check=True, capture_output=True)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Pictures whose classes the tiny model knows, for the smoke tests."""
    folder = tmp_path_factory.mktemp("known")
    for label, name in enumerate(("cat", "dog")):
        (folder / name).mkdir()
        (folder / name / "1.png").write_bytes(tiny_picture(label, 1, noise=0.0))
    return {"SMOKE_PICTURES": str(folder)}


class Broken(BaseHTTPRequestHandler):
    """What users would meet behind a wrong route."""

    def do_GET(self) -> None:
        self.send_error(502)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def broken() -> Iterator[str]:
    """The address of a server that has only errors for its users."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.timeout(900)
def test_a_release_is_rolled_out_and_one_that_fails_from_outside_is_rolled_back(
    stage: Stage, known: dict[str, str], broken: str
) -> None:
    green = stage.act(stage.service, **known)
    assert green.returncode == 0, green.stdout[-6000:] + green.stderr[-2000:]
    first = stage.running()
    assert DIGEST.fullmatch(first)
    assert f"cosign sign --yes --recursive {first}" in green.stdout
    assert "Skipped" not in green.stdout
    stage.commit("a change that breaks the route")
    red = stage.act(broken, **known)
    assert red.returncode == 1
    tried = re.search(rf"rolling out {IMAGE} (sha256:\w+)", red.stdout)
    assert tried is not None, red.stdout[-6000:]
    assert f"{IMAGE}@{tried[1]}" != first
    assert "Failure - Main Smoke tests from where users are" in red.stdout
    assert "Success - Main Roll back" in red.stdout, red.stdout[-6000:]
    assert stage.running() == first
