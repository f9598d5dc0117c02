"""Waiting for a Deployment to run one version on all its pods."""

from __future__ import annotations

import time
from dataclasses import dataclass

from k8s import manifests
from k8s.manifests import Object
from k8s.rollout import trouble
from k8s.rollout.installation import Installation
from k8s.rollout.kubectl import Kubectl
from k8s.rollout.trouble import Trouble
from k8s.target import DeployError, moments

REVISION = "deployment.kubernetes.io/revision"


@dataclass(frozen=True)
class State:
    """The Deployment, the ReplicaSet of its newest revision, and the pods: those of that ReplicaSet and all."""

    deployment: Object
    newest: Object | None
    pods: list[Object]
    all_pods: list[Object]

    @classmethod
    def read(cls, kubectl: Kubectl, installation: Installation) -> State:
        kinds = "deployments.apps,replicasets.apps,pods"
        found = kubectl.items("get", kinds, f"--selector={installation.selector}")
        deployments = [
            one for one in found if (one["kind"], one["metadata"]["name"]) == ("Deployment", installation.name)
        ]
        if not deployments:
            raise DeployError(f"Deployment {installation.name} is gone, or has lost its labels")
        [deployment] = deployments
        revision = deployment["metadata"].get("annotations", {}).get(REVISION)
        sets = [one for one in found if one["kind"] == "ReplicaSet" and _owner(one) == deployment["metadata"]["uid"]]
        newest = next((one for one in sets if one["metadata"]["annotations"].get(REVISION) == revision), None)
        pods = [one for one in found if one["kind"] == "Pod"]
        own = [one for one in pods if newest and _owner(one) == newest["metadata"]["uid"]]
        return cls(deployment, newest, own, pods)

    @property
    def image(self) -> str:
        return str(manifests.container(self.deployment)["image"])

    @property
    def observed(self) -> bool:
        """Whether the controller has seen the last change."""
        seen = self.deployment.get("status", {}).get("observedGeneration", 0)
        return bool(seen >= self.deployment["metadata"]["generation"])

    def complete(self, minimum: int) -> bool:
        """All pods are of the newest revision and available, and there are as many as there are to be."""
        status, wanted = self.deployment.get("status", {}), self.deployment["spec"].get("replicas", 1)
        counts = {status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")}
        return self.observed and counts == {wanted} and wanted >= minimum

    def trouble(self) -> Trouble | None:
        """The first reason why it will not be complete; room that pods on their way out take is waited for."""
        if not self.observed:
            return None
        found = [trouble.of_pod(one) for one in self.pods if "deletionTimestamp" not in one["metadata"]]
        found += [trouble.of_owner(one) for one in (self.newest, self.deployment) if one]
        going = any("deletionTimestamp" in one["metadata"] for one in self.all_pods)
        return next((one for one in found if one and not (one.patience and going)), None)

    def ready_pod(self) -> str:
        """Name of a ready pod of the newest revision."""
        ready = [one for one in self.pods if trouble.is_ready(one) and "deletionTimestamp" not in one["metadata"]]
        if not ready:
            raise DeployError("no pod of the new version is ready any more")
        return str(ready[0]["metadata"]["name"])


def wait(kubectl: Kubectl, installation: Installation, image: str, minimum: int, timeout: float) -> State:
    """Until all pods run `image`. DeployError as soon as it is clear that they will not, or somebody changed it."""
    since, waited_for = time.monotonic(), ""
    state = State.read(kubectl, installation)
    for _ in moments(timeout):
        if state.image != image:
            raise DeployError(f"somebody else has meanwhile set the image {state.image}")
        if state.complete(minimum):
            return state
        what = state.trouble()
        reason = what.reason if what else ""
        if reason != waited_for:
            since, waited_for = time.monotonic(), reason
        if what and trouble.is_over(kubectl, what, time.monotonic() - since):
            tell(kubectl, state)
            raise DeployError(str(what))
        state = State.read(kubectl, installation)
    tell(kubectl, state)
    status = state.deployment.get("status", {})
    counts = f"{status.get('updatedReplicas', 0)} new pods, {status.get('availableReplicas', 0)} available"
    raise DeployError(f"not complete after {timeout:g} s: {counts}, {max(minimum, status.get('replicas', 0))} wanted")


def tell(kubectl: Kubectl, state: State) -> None:
    """Print what the pods of the new version that are not ready say."""
    for one in state.pods:
        if not trouble.is_ready(one):
            print("\n".join(trouble.report(kubectl, one["metadata"]["name"])), flush=True)


def _owner(one: Object) -> str:
    return next((str(each["uid"]) for each in one["metadata"].get("ownerReferences", []) if each.get("controller")), "")
