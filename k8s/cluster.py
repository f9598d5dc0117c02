"""The target Kubernetes, through kubectl and its current context."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from k8s import manifests
from k8s.interrupts import Interrupted, interrupts
from k8s.manifests import NAME, Object
from k8s.rollout import access, candidate, progress, registry, rehearsal
from k8s.rollout.forward import forwarded
from k8s.rollout.installation import MODEL, NAME_LABEL, PREVIOUS, Installation
from k8s.rollout.kubectl import MANAGER, Kubectl
from k8s.rollout.lease import Lease
from k8s.rollout.snapshot import Snapshot
from k8s.target import Check, DeployError, Image, Instance, Lineage, call, described

URL_VARIABLE = "DEPLOY_URL"
FIRST = (
    "ServiceAccount",
    "NetworkPolicy",
    "PersistentVolumeClaim",
    "Secret",
)  # what a candidate needs before all else is there
DRIFT = "drift"  # container of the CronJob that runs the same image


class Cluster:
    """One instance of the service in its namespace.

    A roll-out tests one pod that no request reaches, then applies all manifests; after a failed one, what ran before
    is put back: image, settings and all, as it was read from the cluster.
    """

    def __init__(self, folder: Path = manifests.FOLDER, overlay: Path | None = None, force: bool = False) -> None:
        self.folder, self.overlay, self.force = folder, overlay, force

    @cached_property
    def installation(self) -> Installation:
        return Installation.read(self.folder, self.overlay)

    @cached_property
    def kubectl(self) -> Kubectl:
        return Kubectl(self.installation.namespace, call(["kubectl", "config", "current-context"]).strip())

    @cached_property
    def lease(self) -> Lease:
        return Lease(self.kubectl, self.installation.name, f"{getpass.getuser()}@{socket.gethostname()}-{os.getpid()}")

    @cached_property
    def name(self) -> str:
        place = f"k8s/{self.kubectl.context}/{self.kubectl.namespace}"
        return place if self.installation.name == NAME else f"{place}/{self.installation.name}"

    @contextlib.contextmanager
    def exclusive(self, patience: float) -> Iterator[None]:
        if self._outside:
            print(self.kubectl.apply(self._outside), end="", flush=True)
        access.require(self.kubectl, access.wanted(self.installation.objects))
        with self.lease.held(patience):
            yield

    def running(self) -> list[Instance]:
        selector = f"--selector={NAME_LABEL}={NAME}"
        return [_instance(one) for one in self.kubectl.items("get", "deployments", "--ignore-not-found", selector)]

    def resolve(self, reference: str | None) -> Image:
        if reference is None:
            reference = self.installation.image
            if reference.endswith(manifests.UNRELEASED):
                raise DeployError("k8s/deployment.yaml names no released image yet: name one with --image")
        if "@sha256:" in reference:
            manifests.require_digest(reference)
            return Image.by_digest(reference)
        return registry.resolve(reference)

    def previous(self) -> Image:
        deployment = self.kubectl.json("get", "deployment", self.installation.name, "--ignore-not-found")
        reference = deployment.get("metadata", {}).get("annotations", {}).get(PREVIOUS, "")
        if not reference:
            raise DeployError(f"{self.name} has no previous image: name one with --image")
        return Image.by_digest(reference)

    def rehearse(self, image: Image) -> list[str]:
        wanted = self.installation.running(image.reference, {})
        if any(one["kind"] == "Namespace" for one in self._outside):
            lines = self.kubectl.apply(self._outside, rehearsal.TRIAL).splitlines()
            lines.append(f"the rest cannot be tried before the namespace {self.kubectl.namespace} is there")
        else:
            lines = rehearsal.rehearse(self.kubectl, [*self._outside, *wanted.own], self.force)
        name = self.installation.name
        return [*lines, f"then test a candidate, roll deployment/{name} out, test it, and go back if it fails"]

    def roll_out(self, image: Image, check: Check, timeout: float, back: bool) -> Lineage:
        wanted = self.installation.running(image.reference, {})
        print("\n".join(rehearsal.rehearse(self.kubectl, wanted.own, self.force)), flush=True)
        before = Snapshot.read(self.kubectl, self.installation)
        model = self._test_candidate(wanted, image, check, timeout, before)
        wanted = self.installation.running(image.reference, self._notes(before, image, model, back))
        try:
            self._replace(wanted, model, check, image, timeout)
        except BaseException as error:
            interrupts.hold()
            outcome = self._restore(before, wanted, timeout)
            if isinstance(error, Interrupted):
                raise Interrupted(error.number, outcome) from None
            if isinstance(error, DeployError):
                raise DeployError(f"{error}; {outcome}") from None
            raise
        self._settle(image)
        return model

    def _test_candidate(
        self, wanted: Installation, image: Image, check: Check, timeout: float, before: Snapshot
    ) -> Lineage:
        """What a pod of the new image, which no request reaches, says it serves; nothing that runs has changed."""
        candidate.remove_stale(self.kubectl)
        first = before.missing(wanted, *FIRST)
        if first:
            self.kubectl.apply(first)
        running = before.image(wanted)
        unchanged = f"{running} runs on, no request has met the new one" if running else "nothing runs, as before"
        try:
            with candidate.answering(self.kubectl, wanted, timeout) as url:
                return check(url, image)
        except Interrupted as error:
            raise Interrupted(error.number, unchanged) from None
        except DeployError as error:
            raise DeployError(f"{error}; {unchanged}") from None

    def _replace(self, wanted: Installation, model: Lineage, check: Check, image: Image, timeout: float) -> None:
        """All pods are to run the tested version."""
        self.lease.require()
        with interrupts.deferred():
            print(self.kubectl.apply(wanted.own, rehearsal.FORCE), end="", flush=True)
        state = progress.wait(self.kubectl, wanted, image.reference, wanted.minimum(), timeout)
        with self._url(state) as url:
            if check(url, image) != model:
                raise DeployError(f"{url} does not serve the model that was tested")
        self.lease.require()
        progress.wait(self.kubectl, wanted, image.reference, wanted.minimum(), timeout)

    @contextlib.contextmanager
    def _url(self, state: progress.State) -> Iterator[str]:
        """Where the rolled-out service answers: DEPLOY_URL, or a port forwarded to a pod of the newest revision."""
        given = os.environ.get(URL_VARIABLE)
        if given:
            yield given.rstrip("/")
            return
        port = manifests.container(state.deployment)["ports"][0]["containerPort"]
        with forwarded(self.kubectl, state.ready_pod(), port) as url:
            yield url

    def _restore(self, before: Snapshot, wanted: Installation, timeout: float) -> str:
        """Put back what ran, and say what runs now. Never raises DeployError."""
        former = before.image(wanted)
        try:
            now = Snapshot.read(self.kubectl, wanted)
            if not former:
                return self._withdraw(now)
            if now.image(wanted) not in (former, wanted.image):
                return f"somebody else has set the image {now.image(wanted)}, which stays"
            before.put_back(self.kubectl, wanted)
            progress.wait(self.kubectl, self.installation, former, 1, timeout)
        except DeployError as error:
            return f"putting back {former or 'nothing'} did not succeed: {error}"
        return f"rolled back: {former} runs again"

    def _withdraw(self, now: Snapshot) -> str:
        """A first roll-out that failed takes its own Deployment away again, if the account may delete one."""
        name = self.installation.name
        if not now.image(self.installation):
            return "nothing ran before, and nothing runs now"
        try:
            self.kubectl("delete", "deployment", name, "--wait=false")
        except DeployError:
            return f"nothing ran before; the new Deployment {name} stays, as this account may not delete it"
        return "nothing ran before, so the new Deployment is deleted again"

    def _notes(self, before: Snapshot, image: Image, model: Lineage, back: bool) -> dict[str, str]:
        """Annotations: the model, and the image to go back to: none after a rollback, as before for the same image."""
        notes, running = {MODEL: described(model)}, before.image(self.installation)
        if running == image.reference:
            deployment = before.objects["Deployment", self.installation.name]
            running = deployment["metadata"].get("annotations", {}).get(PREVIOUS, "")
        if running and not back:
            notes[PREVIOUS] = running
        return notes

    def _settle(self, image: Image) -> None:
        """What else runs this image follows, and the manifests name it."""
        for one in self.kubectl.items(
            "get", "cronjobs", "--ignore-not-found", f"--selector={NAME_LABEL}={NAME}-{DRIFT}"
        ):
            name = one["metadata"]["name"]
            print(
                self.kubectl(
                    "set", "image", f"cronjob/{name}", f"{DRIFT}={image.reference}", f"--field-manager={MANAGER}"
                ),
                end="",
            )
        if self.overlay is None:
            manifests.pin(self.folder, image.reference, manifests.config_hash(self.folder))
            manifests.write_base(self.folder)
            print("k8s/deployment.yaml now names this image, so that `kubectl apply -f k8s/` keeps it: commit the file")
        else:
            print(f"name this image in {self.overlay} too, so that `kubectl apply -k` keeps it: {image.reference}")

    @cached_property
    def _outside(self) -> list[Object]:
        """What lies outside of the namespace and is not as it should be: else it is an administrator's, not ours."""
        return [one for one in self.installation.objects if one not in self.installation.own and not self._stands(one)]

    def _stands(self, one: Object) -> bool:
        """Whether it is there with all our labels, or is not ours to see."""
        try:
            found = self.kubectl.json("get", one["kind"], one["metadata"]["name"], "--ignore-not-found")
        except DeployError:
            return True
        labels = found.get("metadata", {}).get("labels", {})
        return bool(found) and one["metadata"].get("labels", {}).items() <= labels.items()


def _instance(deployment: Object) -> Instance:
    status, metadata = deployment.get("status", {}), deployment["metadata"]
    model = metadata.get("annotations", {}).get(MODEL, "-")
    ready = f"{status.get('readyReplicas', 0)} of {deployment['spec'].get('replicas', 1)} ready"
    return Instance(metadata["name"], manifests.container(deployment)["image"], model, ready)
