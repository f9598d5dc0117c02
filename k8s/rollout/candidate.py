"""One pod of the new version that no Service selects: it is tested before anybody's request meets it.

It is what the Deployment's pods will be, but for its labels, and that the new settings are written into it: the
ConfigMap in the cluster stays what the running pods were started with. It restarts nothing, so a crash shows at once.
"""

from __future__ import annotations

import contextlib
import copy
import secrets
import time
from collections.abc import Iterator
from typing import Any

import yaml

from k8s import manifests
from k8s.interrupts import interrupts
from k8s.manifests import NAME, Object
from k8s.rollout import trouble
from k8s.rollout.forward import forwarded
from k8s.rollout.installation import NAME_LABEL, Installation
from k8s.rollout.kubectl import MANAGER, Kubectl
from k8s.target import DeployError, moments

LABEL = f"{NAME}-candidate"  # its app.kubernetes.io/name
OUTLIVES_S = 600  # beyond the timeout: then the kubelet ends a candidate whose deploy.py was killed
GONE_S = 60.0


def pod(installation: Installation, timeout: float) -> Object:
    """The candidate's manifest; DeployError when a Service of the installation would select it."""
    template = copy.deepcopy(installation.deployment["spec"]["template"])
    labels = template["metadata"]["labels"] | {NAME_LABEL: LABEL, "track": "candidate"}
    for service in installation.of_kind("Service"):
        if service["spec"].get("selector", {}).items() <= labels.items():
            raise DeployError(
                f"Service {service['metadata']['name']} would select the candidate: let it select {NAME_LABEL}: {NAME}"
            )
    spec = template["spec"] | {"restartPolicy": "Never", "activeDeadlineSeconds": int(timeout) + OUTLIVES_S}
    spec.pop("topologySpreadConstraints", None)
    own = manifests.container({"spec": {"template": {"spec": spec}}})
    own["env"] = _variables(own, installation.settings(own))
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{installation.name}-candidate-{secrets.token_hex(3)}",
            "namespace": installation.namespace,
            "labels": labels,
            "annotations": template["metadata"].get("annotations", {}),
        },
        "spec": spec,
    }


def _variables(container: Object, settings: dict[str, str]) -> list[dict[str, Any]]:
    """`env`, and the settings as values; a variable of `env` goes before one of `envFrom`, as Kubernetes has it."""
    own: list[dict[str, Any]] = container.get("env", [])
    names = {one["name"] for one in own}
    container["envFrom"] = [one for one in container.get("envFrom", []) if "configMapRef" not in one or not settings]
    return [*({"name": key, "value": value} for key, value in settings.items() if key not in names), *own]


@contextlib.contextmanager
def answering(kubectl: Kubectl, installation: Installation, timeout: float) -> Iterator[str]:
    """The URL of a candidate that is ready; it is gone afterwards, whatever happens.

    DeployError, with the pod's reason, as soon as it is clear that it will not be ready; what it said is printed.
    """
    wanted = pod(installation, timeout)
    name = wanted["metadata"]["name"]
    try:
        with interrupts.deferred():
            kubectl("create", f"--field-manager={MANAGER}", "-f", "-", text=yaml.safe_dump(wanted))
        print(f"testing pod {name}, which gets no requests yet", flush=True)
        _wait_ready(kubectl, name, timeout)
        with forwarded(kubectl, name, _port(wanted)) as url:
            yield url
    finally:
        with interrupts.deferred():
            remove(kubectl, f"pod/{name}")


def remove(kubectl: Kubectl, *which: str) -> None:
    """Delete candidates and wait until they are gone, for the room that they took; nobody's request is in them."""
    kubectl("delete", *which, "--ignore-not-found", "--now", "--wait=false")
    for _ in moments(GONE_S):
        if not kubectl.items("get", *which, "--ignore-not-found"):
            return


def remove_stale(kubectl: Kubectl) -> None:
    """Candidates of a deploy.py that was killed."""
    for stale in kubectl.items("get", "pods", f"--selector={NAME_LABEL}={LABEL}"):
        remove(kubectl, f"pod/{stale['metadata']['name']}")


def _port(wanted: Object) -> int:
    container = manifests.container({"spec": {"template": {"spec": wanted["spec"]}}})
    return int(container["ports"][0]["containerPort"])


def _wait_ready(kubectl: Kubectl, name: str, timeout: float) -> None:
    begun = time.monotonic()
    for _ in moments(timeout):
        found = kubectl.json("get", "pod", name, "--ignore-not-found")
        if not found:
            raise DeployError(f"pod {name} was deleted by somebody else before it was ready")
        if trouble.is_ready(found):
            return
        what = trouble.of_pod(found)
        if what and trouble.is_over(kubectl, what, time.monotonic() - begun):
            _say(kubectl, name)
            raise DeployError(str(what))
    _say(kubectl, name)
    raise DeployError(f"pod {name} was not ready after {timeout:g} s")


def _say(kubectl: Kubectl, name: str) -> None:
    print("\n".join(trouble.report(kubectl, name)), flush=True)
