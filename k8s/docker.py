"""The target Docker: one machine, where one container takes over from another behind a front that stays.

The front (HAProxy, k8s/front/) holds the port. It sends requests to the containers on the network classifier-live that
say they are ready, and on a port of its own to the one on classifier-candidate. So the new container starts and is
tested out of the way, joins, and only then the former is asked to go: its /readyz says no, the front leaves it out, it
ends what it has begun. The networks of the containers lead nowhere else, as k8s/02-networkpolicy.yaml has it.
The container runs as k8s/deployment.yaml and configmap.yaml say.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import hashlib
import json
import os
import socket
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from k8s import manifests
from k8s.interrupts import Interrupted, interrupts
from k8s.manifests import NAME
from k8s.target import (
    MODEL_LABEL,
    Check,
    DeployError,
    Image,
    Instance,
    Lineage,
    call,
    described,
    lineage_at,
    moments,
    status_of,
    succeeds,
)
from training.model import pin
from training.serving.records.log_files import CAPTURED_FOLDER

LIVE, CANDIDATE = "classifier-live", "classifier-candidate"  # names in Docker's DNS that haproxy.cfg asks for
IMAGE_LABEL = "cats-vs-dogs.image"  # of a container: the reference it runs
NAME_LABEL = "cats-vs-dogs.name"  # of a container: what it is called once it takes requests
FRONT_LABEL = "cats-vs-dogs.front"
PORT_VARIABLE = "DEPLOY_PORT"
NAME_VARIABLE = "DEPLOY_NAME"
SWITCH_S = 20.0  # for the front to see that a container is ready


def resolve(reference: str) -> Image:
    """The image by digest. A name with a registry is pulled; an image that was never pushed is known by its id."""
    first = reference.partition("/")[0]
    in_registry = "/" in reference and (first == "localhost" or "." in first or ":" in first)
    if in_registry and not ("@" in reference and succeeds(["docker", "image", "inspect", reference])):
        call(["docker", "pull", "--quiet", reference])
    try:
        [facts] = json.loads(call(["docker", "image", "inspect", reference]))
    except DeployError:
        raise DeployError(f"this machine has no image {reference}: run `make image`") from None
    labels = facts["Config"].get("Labels") or {}
    name = reference.partition("@")[0]
    repository = name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name
    digests = [one for one in facts.get("RepoDigests") or [] if not in_registry or one.startswith(f"{repository}@")]
    if digests:
        known = Image.by_digest(digests[0])
        return Image(known.name, known.digest, known.reference, labels)
    return Image((facts.get("RepoTags") or [reference])[0], facts["Id"], facts["Id"], labels)


class Docker:
    """Containers of the service behind the front on this machine."""

    def __init__(self, folder: Path = manifests.FOLDER) -> None:
        self.folder = folder
        self.port = os.environ.get(PORT_VARIABLE, "3000")
        self.prefix = os.environ.get(NAME_VARIABLE, NAME)
        self.front, self.live, self.candidate = (f"{self.prefix}-{part}" for part in ("front", "live", "candidate"))
        self.template = manifests.find(manifests.load(folder), "Deployment")["spec"]["template"]["spec"]
        self.config = manifests.find(manifests.load(folder), "ConfigMap")["data"]

    @property
    def name(self) -> str:
        return f"docker/{self.prefix}@{socket.gethostname()}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def exclusive(self, _patience: float) -> AbstractContextManager[None]:
        """The folder's lock of deploy.py is enough: an engine is one machine's."""
        return contextlib.nullcontext()

    def running(self) -> list[Instance]:
        names = [*self._containers("running"), *self._containers("exited")]
        return [_instance(one) for one in (_inspect(name) for name in names)]

    def resolve(self, reference: str | None) -> Image:
        return resolve(_image_of_champion() if reference is None else reference)

    def previous(self) -> Image:
        stopped = self._containers("exited")
        if not stopped:
            raise DeployError("there is no previous container here: name an image with --image")
        return resolve(_inspect(stopped[0])["Config"]["Labels"][IMAGE_LABEL])

    def rehearse(self, image: Image) -> list[str]:
        live = self._containers("running")
        return [
            f"docker {' '.join(self._run_words(image))}",
            "wait for it to be ready and test it, out of the way",
            f"let it join {self.live} behind {self.url}" + (f", then stop {', '.join(live)}" if live else ""),
        ]

    def roll_out(self, image: Image, check: Check, timeout: float, back: bool) -> Lineage:
        self._prepare()
        self._clear()
        former = self._containers("running")
        joined = False
        try:
            call(["docker", *self._run_words(image)])
            trial = f"http://{_published(self.front, 3001)}"
            self._wait_ready(trial, timeout)
            model = check(trial, image)
            joined = True
            self._join(len(former))
            self._stop(former)
            if lineage_at(self.url) != model:
                raise DeployError(f"{self.url} does not answer as the new container does")
        except BaseException as error:
            interrupts.hold()
            outcome = self._restore(former, joined)
            if isinstance(error, Interrupted):
                raise Interrupted(error.number, outcome) from None
            if isinstance(error, DeployError):
                raise DeployError(f"{error}; {outcome}") from None
            raise
        self._settle(former, back)
        return model

    def _prepare(self) -> None:
        """Networks and front, as they should be."""
        for network, options in ((self.front, ()), (self.live, ("--internal",)), (self.candidate, ("--internal",))):
            if not succeeds(["docker", "network", "inspect", network]):
                call(["docker", "network", "create", *options, network])
        files = sorted((self.folder / "front").iterdir())
        content = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
        wanted = f"{content}-{self.port}"
        as_wanted = ("--filter", f"name=^{self.front}$", "--filter", f"label={FRONT_LABEL}={wanted}")
        if call(["docker", "ps", "--quiet", *as_wanted]).strip():
            return
        tag = f"{NAME}-front:{content}"
        if not succeeds(["docker", "image", "inspect", tag]):
            print(f"building {tag} (once)", flush=True)
            call(["docker", "build", "--quiet", "--tag", tag, str(self.folder / "front")])
        if succeeds(["docker", "inspect", self.front]):
            call(["docker", "rm", "--force", self.front])
        ports = ("--publish", f"127.0.0.1:{self.port}:3000", "--publish", "127.0.0.1::3001")
        label = ("--label", f"{FRONT_LABEL}={wanted}")
        keep = ("--restart", "unless-stopped", "--memory", "256m", "--tmpfs", "/run/haproxy:mode=1777")
        call(["docker", "create", "--name", self.front, "--network", self.front, *ports, *label, *keep, *HARDENED, tag])
        for network in (self.live, self.candidate):
            call(["docker", "network", "connect", network, self.front])
        call(["docker", "start", self.front])

    def _clear(self) -> None:
        """A roll-out that was killed left a candidate: one that takes requests stays, another goes."""
        if self.candidate in self._containers("running"):
            self._name(self.candidate)
        elif succeeds(["docker", "inspect", self.candidate]):
            call(["docker", "rm", "--force", self.candidate])

    def _run_words(self, image: Image) -> list[str]:
        now = datetime.datetime.now(datetime.UTC)
        name = f"{self.prefix}-{image.digest.rpartition(':')[2][:12]}-{now:%Y%m%d%H%M%S}"
        where = ("--name", self.candidate, "--network", self.candidate, "--network-alias", CANDIDATE)
        labels = ("--label", f"{IMAGE_LABEL}={image.reference}", "--label", f"{NAME_LABEL}={name}")
        logs = ("--log-opt", "max-size=10m", "--log-opt", "max-file=3")
        folder = self.config["SERVE_LOG_DIR"]
        # Kept pictures lie in one folder for all: whichever container runs deletes those that are too old.
        kept = self.config.get("CAPTURE_URL", f"{folder}/{CAPTURED_FOLDER}")
        own = ("--env", f"SERVE_LOG_DIR={folder}/{name}", "--env", f"CAPTURE_URL={kept}")
        options = pod_options(self.template, self.config, self.prefix)
        return ["run", "--detach", *where, *labels, *logs, *HARDENED, *options, *own, image.reference]

    def _wait_ready(self, url: str, timeout: float) -> None:
        for _ in moments(timeout):
            if not _inspect(self.candidate)["State"]["Running"]:
                raise DeployError(f"the new container exited: {_last_words(self.candidate)}")
            if status_of(f"{url}/readyz") == 200 and _ready_behind(self.front, "candidate"):
                return
        raise DeployError(f"the new container was not ready after {timeout:g} s: {_last_words(self.candidate)}")

    def _join(self, others: int) -> None:
        """Let the tested container take requests, and wait until the front gives it some."""
        call(["docker", "update", "--restart", "unless-stopped", self.candidate])
        call(["docker", "network", "connect", "--alias", LIVE, self.live, self.candidate])
        self._wait_served(others + 1)

    def _wait_served(self, wanted: int) -> None:
        for _ in moments(SWITCH_S):
            if _ready_behind(self.front, "live") >= wanted:
                return
        raise DeployError(f"the front does not see {wanted} ready containers after {SWITCH_S:g} s")

    def _stop(self, names: list[str]) -> None:
        """SIGTERM, and all the time a pod would have to end its requests."""
        for name in names:
            call(["docker", "stop", "--time", str(self.template["terminationGracePeriodSeconds"]), name])

    def _restore(self, former: list[str], joined: bool) -> str:
        """The former containers take requests again, and the new one is gone."""
        if joined and former:
            call(["docker", "start", *former])
            with contextlib.suppress(DeployError):  # the new one may be up, or may not
                self._wait_served(len(former) + 1)
        if succeeds(["docker", "inspect", self.candidate]):
            self._stop([self.candidate] if joined else [])
            call(["docker", "rm", "--force", self.candidate])
        with contextlib.suppress(DeployError):
            return f"rolled back: {described(lineage_at(self.url))} answers"
        return "nothing ran before, and nothing runs now"

    def _settle(self, former: list[str], back: bool) -> None:
        """Name the new container; keep the former one, stopped, for --rollback, or none after a rollback."""
        kept = [] if back else former[:1] or self._containers("exited")[:1]
        gone = [name for name in self._containers("exited") if name not in kept]
        if gone:
            call(["docker", "rm", *gone])
        self._name(self.candidate)

    def _containers(self, state: str) -> list[str]:
        """Names of the service's containers on the live network, the newest first."""
        filters = (f"status={state}", f"network={self.live}", f"label={IMAGE_LABEL}")
        words = [word for one in filters for word in ("--filter", one)]
        return call(["docker", "ps", "--all", *words, "--format", "{{.Names}}"]).split()

    def _name(self, container: str) -> None:
        """Give a container that takes requests its own name, and leave the candidate's to the next one."""
        facts = _inspect(container)
        if self.candidate in facts["NetworkSettings"]["Networks"]:
            call(["docker", "network", "disconnect", self.candidate, container])
        call(["docker", "rename", container, facts["Config"]["Labels"][NAME_LABEL]])


HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--pids-limit", "256")


def pod_options(template: dict[str, Any], config: dict[str, str], prefix: str = NAME) -> list[str]:
    """Options of `docker run` for what a pod template says: user, memory, environment, writable folders."""
    container = manifests.container({"spec": {"template": {"spec": template}}})
    user, group = template["securityContext"]["runAsUser"], template["securityContext"]["runAsGroup"]
    options = ["--user", f"{user}:{group}", "--memory", container["resources"]["limits"]["memory"].removesuffix("i")]
    values = {one["name"]: one["value"] for one in container["env"] if "value" in one} | config
    for name, value in values.items():
        options += ["--env", f"{name}={value}"]
    secrets = [one["name"] for one in container["env"] if "secretKeyRef" in one.get("valueFrom", {})]
    for name in secrets:
        if name in os.environ:
            options += ["--env", name]  # docker takes the value from our own environment: no other user sees it
    sizes = {one["name"]: one["emptyDir"]["sizeLimit"].removesuffix("i") for one in template["volumes"]}
    for mount in container["volumeMounts"]:
        name, path = mount["name"], mount["mountPath"]
        if name == "logs":  # outlives the container, as a claim would outlive the pod
            options += ["--volume", f"{prefix}-{name}:{path}"]
        else:
            options += ["--tmpfs", f"{path}:size={sizes[name]},uid={user},gid={group},mode=0700"]
    return options


def _image_of_champion() -> str:
    """The newest image on this machine that carries the pinned champion."""
    tag = pin.read().bento_tag
    label = f"label={MODEL_LABEL}={tag}"
    newest = call(
        ["docker", "images", "--no-trunc", "--quiet", "--filter", "dangling=false", "--filter", label]
    ).split()
    if not newest:
        raise DeployError(f"this machine has no image of the champion {tag}: run `make image`")
    return newest[0]


def _inspect(name: str) -> dict[str, Any]:
    [facts] = json.loads(call(["docker", "inspect", name]))
    return dict(facts)


def _instance(facts: dict[str, Any]) -> Instance:
    state = facts["State"]["Status"] if facts["State"]["Running"] else "kept for --rollback"
    labels = facts["Config"]["Labels"]
    return Instance(facts["Name"].lstrip("/"), labels[IMAGE_LABEL], labels.get(MODEL_LABEL, "-"), state)


def _published(name: str, port: int) -> str:
    return call(["docker", "port", name, f"{port}/tcp"]).split()[0]


def _ready_behind(front: str, part: str) -> int:
    """How many containers of `part` the front sends requests to, and goes on to: their last look found them ready.

    HAProxy takes a container it has just found for up. One that starts slowly may answer a request that waited for it
    and still be left out a moment later, for the looks that found it starting.
    """
    words = ["docker", "exec", "--interactive", front, "socat", "-", "UNIX-CONNECT:/run/haproxy/stats.sock"]
    rows = csv.DictReader(call(words, "show stat\n").removeprefix("# ").splitlines())
    servers = [row for row in rows if row["pxname"] == part and row["svname"] not in ("FRONTEND", "BACKEND")]
    return sum(row["status"] == "UP" and row["check_status"].endswith("L7OK") for row in servers)


def _last_words(name: str) -> str:
    """The last lines of a container's log, in one."""
    words = ["docker", "logs", "--tail", "5", name]
    return " | ".join(line.strip() for line in call(["sh", "-c", f"{' '.join(words)} 2>&1"]).splitlines()[-5:])
