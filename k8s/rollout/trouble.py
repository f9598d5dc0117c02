"""Why a pod will not become ready, as soon as the cluster knows it: from statuses, conditions and events.

Sources: the reasons are those of the kubelet (pkg/kubelet/images/types.go, container/sync_result.go), the scheduler
and the ReplicaSet controller.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from k8s.manifests import Object
from k8s.rollout.kubectl import Kubectl
from k8s.target import DeployError

HOPELESS = {  # waiting for these is waiting for the timeout
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImageInspectError",
    "ImagePullBackOff",
    "InvalidImageName",
    "RegistryUnavailable",
    "RunContainerError",
}
COMING_NODE = {"TriggeredScaleUp", "Nominated"}  # events of cluster-autoscaler and Karpenter: room is being made
EVENTS, LINES = 5, 20
ROOM_S = 10.0  # for other pods to go before a pod without a node is given up


@dataclass(frozen=True)
class Trouble:
    """What stands in the way. `patience`: it may pass while other pods go or a node comes."""

    pod: str  # empty: no pod could be made
    reason: str
    message: str
    patience: bool = False

    def __str__(self) -> str:
        where = f"pod {self.pod}: " if self.pod else ""
        return where + ": ".join(part for part in (self.reason, " ".join(self.message.split())) if part)


def of_pod(pod: Object) -> Trouble | None:
    """What the pod's own status says."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        state = container.get("state", {})
        waiting, ended = state.get("waiting", {}), state.get("terminated")
        if waiting.get("reason") in HOPELESS:
            last = container.get("lastState", {}).get("terminated")
            return Trouble(name, waiting["reason"], _ended(last) if last else waiting.get("message", ""))
        if ended and ended["exitCode"] and status.get("phase") == "Failed":
            return Trouble(name, ended.get("reason", "Error"), _ended(ended))
    if status.get("phase") in ("Failed", "Succeeded"):
        return Trouble(name, status.get("reason", status["phase"]), status.get("message", "it ended by itself"))
    for condition in status.get("conditions", []):
        if (condition["type"], condition["status"]) == ("PodScheduled", "False"):
            return Trouble(name, condition.get("reason", "Unschedulable"), condition.get("message", ""), patience=True)
    return None


def _ended(terminated: Object) -> str:
    why = terminated.get("message") or terminated.get("reason", "")
    return f"exit code {terminated['exitCode']}" + (f" ({why})" if why not in ("", "Error") else "")


def of_owner(owner: Object) -> Trouble | None:
    """What a Deployment or ReplicaSet says of pods that it cannot make: a quota, an admission refusal."""
    for condition in owner.get("status", {}).get("conditions", []):
        if (condition["type"], condition["status"]) == ("ReplicaFailure", "True"):
            return Trouble("", condition.get("reason", "FailedCreate"), condition.get("message", ""), patience=True)
        if (condition["type"], condition.get("reason")) == ("Progressing", "ProgressDeadlineExceeded"):
            return Trouble("", "ProgressDeadlineExceeded", condition.get("message", ""))
    return None


def is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any((one["type"], one["status"]) == ("Ready", "True") for one in conditions)


def events(kubectl: Kubectl, name: str) -> list[Object]:
    """Of one object, the oldest first."""
    found = kubectl.items("get", "events", f"--field-selector=involvedObject.name={name}")
    return sorted(found, key=lambda one: one.get("lastTimestamp") or one.get("eventTime") or "")


def node_is_coming(kubectl: Kubectl, pod: str) -> bool:
    return any(one.get("reason") in COMING_NODE for one in events(kubectl, pod))


def is_over(kubectl: Kubectl, what: Trouble, waited: float) -> bool:
    """Whether waiting `waited` seconds for it to pass was enough."""
    if not what.patience:
        return True
    return waited > ROOM_S and not (what.pod and node_is_coming(kubectl, what.pod))


def report(kubectl: Kubectl, pod: str) -> Iterator[str]:
    """Last events and last lines of a pod that failed, for whoever mends it."""
    with contextlib.suppress(DeployError):
        for one in [each for each in events(kubectl, pod) if each.get("type") == "Warning"][-EVENTS:]:
            yield f"event of {pod}: {one.get('reason')}: {' '.join(one.get('message', '').split())}"
    for previous in ((), ("--previous",)):
        with contextlib.suppress(DeployError):
            lines = kubectl("logs", pod, f"--tail={LINES}", *previous).splitlines()
            yield from (f"{pod}: {line}" for line in lines)
