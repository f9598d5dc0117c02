"""What ran before, read before anything is changed, and put back as it was.

It is read from the cluster and not from a manifest: whoever made it (kubectl apply, create or set image, rollout undo,
Helm, Flux), that is what comes back. Nothing that was there before is deleted.
"""

from __future__ import annotations

import json
from typing import Any

import yaml

from k8s import manifests
from k8s.manifests import Object
from k8s.rollout.installation import Installation
from k8s.rollout.kubectl import Kubectl

SERVER_OWN = ("apiVersion", "kind", "metadata", "status")
CONTROLLER = "deployment.kubernetes.io/"  # annotations that the Deployment controller writes

Key = tuple[str, str]
Patch = list[dict[str, Any]]


def _key_of(one: Object) -> Key:
    return one["kind"], one["metadata"]["name"]


class Snapshot:
    """The objects of an installation as they are in the cluster at one moment."""

    def __init__(self, found: list[Object]) -> None:
        self.objects = {_key_of(one): one for one in found}

    @classmethod
    def read(cls, kubectl: Kubectl, installation: Installation) -> Snapshot:
        text = yaml.safe_dump_all(installation.own, sort_keys=False)
        return cls(kubectl.items("get", "-f", "-", "--ignore-not-found", text=text))

    def image(self, installation: Installation) -> str:
        """Of the Deployment; empty when there was none."""
        deployment = self.objects.get(("Deployment", installation.name))
        return str(manifests.container(deployment)["image"]) if deployment else ""

    def missing(self, installation: Installation, *kinds: str) -> list[Object]:
        """Objects of these kinds that did not exist."""
        return [one for one in installation.of_kind(*kinds) if _key_of(one) not in self.objects]

    def put_back(self, kubectl: Kubectl, installation: Installation) -> list[str]:
        """Make every object again what it was; the names of those that had changed.

        Replicas are put back only where our own manifest had named them: otherwise they are the autoscaler's.
        """
        changed = []
        for key, now in Snapshot.read(kubectl, installation).objects.items():
            before = self.objects.get(key)
            if before is None:
                continue
            if key == ("Deployment", installation.name) and "replicas" not in installation.deployment["spec"]:
                before = json.loads(json.dumps(before))
                before["spec"]["replicas"] = now["spec"].get("replicas", 1)
            patch = difference(now, before)
            if patch:
                kubectl.patch(key[0], key[1], patch)
                changed.append("/".join(key))
        return changed


def difference(now: Object, before: Object) -> Patch:
    """The JSON patch that makes `now` as `before` was; what only the server writes is left alone."""
    patch = _changes("", _content(now), _content(before))
    for part in ("labels", "annotations"):
        was, is_now = before["metadata"].get(part, {}), now["metadata"].get(part, {})
        wanted = {key: value for key, value in was.items() if not key.startswith(CONTROLLER)}
        kept = {key: value for key, value in is_now.items() if key.startswith(CONTROLLER)}
        if wanted | kept != is_now:
            patch.append({"op": "add", "path": f"/metadata/{part}", "value": wanted | kept})
    return patch


def _content(one: Object) -> Object:
    return {key: value for key, value in one.items() if key not in SERVER_OWN}


def _changes(path: str, now: Object, before: Object) -> Patch:
    """Top-level keys only: each is replaced as a whole."""
    patch: Patch = [{"op": "remove", "path": f"{path}/{key}"} for key in now if key not in before]
    return patch + [
        {"op": "add", "path": f"{path}/{key}", "value": value} for key, value in before.items() if now.get(key) != value
    ]
