"""What the two targets of deploy.py, Docker and Kubernetes, have in common."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from training.common.errors import ExpectedError

HTTP_TIMEOUT_S = 5.0
POLL_S = 0.25
KLOG = re.compile(r"[EIW]\d{4} ")  # a line of kubectl's own log
MODEL_LABEL = "model.bento_tag"  # of the image
BENTO_LABEL = "org.opencontainers.image.version"

Lineage = dict[str, Any]  # `model` of the service's /health
Check = Callable[[str, "Image"], Lineage]  # tests a service at a URL; DeployError when it is not as wanted


class DeployError(ExpectedError):
    """The roll-out failed; the message says why, and what runs now."""


@dataclass(frozen=True)
class Image:
    """An image that cannot change: `name` for people, `digest`, and `reference`, which the engine runs.

    `labels` are the image's own, as far as they can be read without pulling it.
    """

    name: str
    digest: str
    reference: str
    labels: dict[str, str] = field(default_factory=dict)

    @classmethod
    def by_digest(cls, reference: str) -> Image:
        """Of NAME@sha256:..."""
        name, _, digest = reference.partition("@")
        return cls(name, digest, reference)


@dataclass(frozen=True)
class Instance:
    """A row of the table of what runs."""

    name: str
    image: str
    model: str
    state: str


class Target(Protocol):
    """A place where one version of the service runs and another takes over from it."""

    @property
    def name(self) -> str:
        """As recorded with a deployment, for example docker/classifier."""

    def exclusive(self, patience: float, /) -> AbstractContextManager[None]:
        """One roll-out at a time, from wherever: wait for another `patience` seconds, then DeployError."""

    def running(self) -> list[Instance]: ...

    def resolve(self, reference: str | None) -> Image:
        """The image meant, by digest; None: the one that is due here. DeployError when there is none."""

    def previous(self) -> Image:
        """The image to which --rollback returns; DeployError without one."""

    def rehearse(self, image: Image) -> list[str]:
        """What `roll_out` would do, step by step; nothing is changed."""

    def roll_out(self, image: Image, check: Check, timeout: float, back: bool) -> Lineage:
        """Make `image` the one that answers, once `check` agrees; `back`: it is a rollback, what ran is given up.

        DeployError, or whatever interrupted it, after what ran before was put back.
        """


def call(command: Sequence[str], text: str | None = None) -> str:
    """Standard output of a command; DeployError with its error output when it fails."""
    try:
        # A process group of its own: Ctrl-C in a terminal is for deploy.py, which decides what is still to be done.
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, process_group=0)
    except FileNotFoundError:
        raise DeployError(f"{command[0]} is not installed here, or not in PATH") from None
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line and not KLOG.match(line)]
        raise DeployError(f"`{shlex.join(command)}` failed: {'; '.join(said)}")
    return done.stdout


def succeeds(command: Sequence[str]) -> bool:
    try:
        call(command)
    except DeployError:
        return False
    return True


def status_of(url: str) -> int:
    """HTTP status of a GET; 0 when nothing answers."""
    try:
        with urllib.request.urlopen(url, timeout=HTTP_TIMEOUT_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def lineage_at(url: str) -> Lineage:
    """Which model the service at `url` says it serves; DeployError when it does not say."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=HTTP_TIMEOUT_S) as answer:
            model = json.load(answer)["model"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeployError(f"{url}/health does not say which model is served: {error}") from None
    return dict(model)


def moments(seconds: float) -> Iterator[float]:
    """The seconds that are left, again and again until there are none."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        yield left
        time.sleep(POLL_S)


def described(model: Lineage) -> str:
    return f"{model.get('name')} version {model.get('version')} ({model.get('bento_tag')})"
