"""The target Kubernetes, through kubectl and its current context."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from k8s import docker, manifests
from k8s.manifests import NAME, NAMESPACE, Object
from k8s.target import Check, DeployError, Image, Instance, Lineage, call, described, succeeds

PREVIOUS = "cats-vs-dogs/previous-image"  # annotations of the Deployment: memory that every machine can read
MODEL = "cats-vs-dogs/model"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
URL_VARIABLE = "DEPLOY_URL"
FORWARD_S = 20.0


class Cluster:
    """Deployment `classifier` in its namespace.

    A roll-out applies all manifests of `folder`; after a failed one, what had been applied before is applied again:
    former image and former settings.
    """

    def __init__(self, folder: Path = manifests.FOLDER) -> None:
        self.folder = folder

    @cached_property
    def name(self) -> str:
        context = call(["kubectl", "config", "current-context"]).strip()
        return f"k8s/{context}/{NAMESPACE}"

    def running(self) -> list[Instance]:
        listed = self._json("get", "deployments", "--ignore-not-found", "--selector", f"app.kubernetes.io/name={NAME}")
        return [_instance(one) for one in listed.get("items", [])]

    def resolve(self, reference: str | None) -> Image:
        if reference is None:
            reference = manifests.container(manifests.find(manifests.load(self.folder), "Deployment"))["image"]
            if reference.endswith(manifests.UNRELEASED):
                raise DeployError("no image is released yet in k8s/deployment.yaml: name one with --image")
        if "@sha256:" in reference:
            manifests.require_digest(reference)
            return Image.by_digest(reference)
        image = docker.resolve(reference)
        manifests.require_digest(image.reference)
        return image

    def previous(self) -> Image:
        reference = self._deployment().get("metadata", {}).get("annotations", {}).get(PREVIOUS, "")
        if not reference:
            raise DeployError(f"{self.name} remembers no former image: name one with --image")
        return Image.by_digest(reference)

    def rehearse(self, image: Image) -> list[str]:
        known = succeeds(["kubectl", "get", "namespace", NAMESPACE])
        text = self._text(image)
        answer = call(["kubectl", "apply", f"--dry-run={'server' if known else 'client'}", "-f", "-"], text)
        return [*answer.splitlines(), f"then wait for deployment/{NAME}, test it, and go back if it fails"]

    def roll_out(self, image: Image, check: Check, timeout: float, back: bool) -> Lineage:
        former, running = self._applied(image), self._image()
        try:
            print(call(["kubectl", "apply", "-f", "-"], self._text(image)), end="")
            self._wait(timeout)
            with self._url() as url:
                model = check(url, image)
            self._remember(model, "" if back else running, image)
        except BaseException as error:
            self._tell()
            outcome = self._restore(former, timeout)
            if isinstance(error, DeployError):
                raise DeployError(f"{error}; {outcome}") from None
            raise
        manifests.pin(self.folder, image.reference, manifests.config_hash(self.folder))
        print("k8s/deployment.yaml names this image now, so that `kubectl apply -f k8s/` repeats it: commit it")
        return model

    def _text(self, image: Image) -> str:
        objects = manifests.with_image(manifests.load(self.folder), image.reference)
        return yaml.safe_dump_all(objects, sort_keys=False)

    def _applied(self, image: Image) -> list[Object]:
        """Our objects as they were last applied; those that do not exist yet are left out."""
        answer = call(["kubectl", "get", "-f", "-", "--ignore-not-found", "-o", "json"], self._text(image))
        found = json.loads(answer) if answer.strip() else {"items": []}
        annotations = [one["metadata"].get("annotations", {}) for one in found.get("items", [found])]
        return [json.loads(one[LAST_APPLIED]) for one in annotations if LAST_APPLIED in one]

    def _restore(self, former: list[Object], timeout: float) -> str:
        if not any(one["kind"] == "Deployment" for one in former):
            self._kubectl("delete", "deployment", NAME, "--ignore-not-found")
            return "nothing ran before, so the Deployment is deleted again"
        call(["kubectl", "apply", "-f", "-"], yaml.safe_dump_all(former, sort_keys=False))
        try:
            self._wait(timeout)
        except DeployError as error:
            return f"the former manifests are applied again, but: {error}"
        return f"rolled back: {self._image()} runs again"

    def _remember(self, model: Lineage, running: str, image: Image) -> None:
        """Note the model and the image to go back to (none after a rollback). The same image again forgets nothing."""
        words = [f"{MODEL}={described(model)}"]
        if running != image.reference:
            words.append(f"{PREVIOUS}={running}" if running else f"{PREVIOUS}-")
        self._kubectl("annotate", "deployment", NAME, "--overwrite", *words)

    def _wait(self, timeout: float) -> None:
        self._kubectl("rollout", "status", f"deployment/{NAME}", f"--timeout={timeout:g}s")

    def _tell(self) -> None:
        """What the pods say, for whoever mends it."""
        pods = ("--selector", f"app.kubernetes.io/name={NAME}")
        for words in (("get", "pods", *pods), ("logs", *pods, "--tail=20", "--prefix")):
            with contextlib.suppress(DeployError):
                print(self._kubectl(*words), end="")

    @contextlib.contextmanager
    def _url(self) -> Iterator[str]:
        """Where the rolled-out service answers: DEPLOY_URL, or a port forwarded to one of its pods meanwhile."""
        given = os.environ.get(URL_VARIABLE)
        if given:
            yield given.rstrip("/")
            return
        command = ["kubectl", "--namespace", NAMESPACE, "port-forward", f"deployment/{NAME}", ":3000"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            yield f"http://127.0.0.1:{_forwarded(child)}"
        finally:
            child.terminate()
            child.wait()

    def _deployment(self) -> Object:
        return self._json("get", "deployment", NAME, "--ignore-not-found")

    def _image(self) -> str:
        deployment = self._deployment()
        return str(manifests.container(deployment)["image"]) if deployment else ""

    def _json(self, *words: str) -> dict[str, Any]:
        answer = self._kubectl(*words, "-o", "json")
        return dict(json.loads(answer)) if answer.strip() else {}

    def _kubectl(self, *words: str) -> str:
        return call(["kubectl", "--namespace", NAMESPACE, *words])


def _instance(deployment: Object) -> Instance:
    status, metadata = deployment.get("status", {}), deployment["metadata"]
    model = metadata.get("annotations", {}).get(MODEL, "-")
    ready = f"{status.get('readyReplicas', 0)} of {deployment['spec'].get('replicas', 1)} ready"
    return Instance(metadata["name"], manifests.container(deployment)["image"], model, ready)


def _forwarded(child: subprocess.Popen[str]) -> str:
    """The local port that `kubectl port-forward` names in its first line."""
    assert child.stdout is not None
    impatience = threading.Timer(FORWARD_S, child.terminate)
    impatience.start()
    line = child.stdout.readline()
    impatience.cancel()
    if "Forwarding from" not in line:
        raise DeployError(
            f"kubectl port-forward does not work ({line.strip()}): set {URL_VARIABLE} to the service's URL"
        )
    return line.split(" -> ")[0].rsplit(":", 1)[1]
