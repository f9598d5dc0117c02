"""The Docker engine of this machine, and an image of a tiny champion made by the project's own command."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.service.server import ROOT, becomes_ready, copy_project, environment, make_champion
from training.model.pin import Champion

READY_S = 90.0  # beside other work; what it takes on a quiet machine is in the README
IDENTITY = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]


def docker(*arguments: str) -> str:
    """What `docker ...` prints."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@dataclass(frozen=True)
class Image:
    """An image, and the project and pin that it was made from."""

    tag: str
    project: Path
    pin: Champion

    @classmethod
    def make(cls, project: Path, tag: str) -> Image:
        """A tiny champion in a copy of the project under git, and `python -m training.image`."""
        copy_project(project)
        shutil.copytree(ROOT / "monitoring", project / "monitoring", ignore=shutil.ignore_patterns("__pycache__"))
        for name in (".gitignore", "README.md", "requirements-serve.lock"):
            shutil.copy(ROOT / name, project / name)
        for command in (["init", "-q"], ["add", "."], [*IDENTITY, "commit", "-q", "-m", "a tiny champion"]):
            subprocess.run(["git", *command], cwd=project, check=True)
        pin = make_champion(project, project.parent / "home")
        image = cls(tag, project, pin)
        image.build()
        return image

    def build(self, *options: str) -> str:
        """Run the command; its output."""
        command = [sys.executable, "-m", "training.image", "--tag", self.tag, *options]
        where = environment(self.project.parent / "home", SOURCE_DATE_EPOCH="1767225600")
        done = subprocess.run(command, cwd=self.project, env=where, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run(self, *options: str) -> Container:
        """Start it as the README does, hardened further by `options`, on a free port of 127.0.0.1."""
        hardened = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
        name = docker("run", "--detach", *hardened, "--publish", "127.0.0.1::3000", *options, self.tag)
        return Container(name, docker("port", name, "3000/tcp").splitlines()[0].rpartition(":")[2])

    def shell(self, script: str) -> str:
        """What a shell in the image says to `script`."""
        return docker("run", "--rm", "--read-only", "--network", "none", "--entrypoint", "sh", self.tag, "-c", script)


@dataclass(frozen=True)
class Container:
    """A running container and its port on 127.0.0.1."""

    name: str
    port: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_ready(self) -> None:
        if not becomes_ready(self.url, READY_S):
            raise AssertionError(f"not ready: {self.logs()}")

    def logs(self) -> str:
        done = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True)
        return done.stdout + done.stderr

    def state(self, key: str) -> str:
        """A field of its state, such as Health.Status."""
        return docker("inspect", "--format", f"{{{{.State.{key}}}}}", self.name)
