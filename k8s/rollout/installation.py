"""What is to run in a cluster: the objects of k8s/, or those that an overlay makes of them."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from k8s import manifests
from k8s.manifests import CONFIG_HASH, NAME, Object
from k8s.target import DeployError, call

PREVIOUS = "cats-vs-dogs/previous-image"  # annotations of the Deployment: memory that every machine can read
MODEL = "cats-vs-dogs/model"
NAME_LABEL = "app.kubernetes.io/name"
CLUSTER_WIDE = {"Namespace", "PriorityClass"}  # kinds outside every namespace; they are an administrator's


@dataclass(frozen=True)
class Installation:
    """One instance of the service: its objects, of which one Deployment serves the stable version."""

    objects: list[Object]

    @classmethod
    def read(cls, folder: Path, overlay: Path | None) -> Installation:
        """Of `folder`'s manifests, or of the Kustomize folder `overlay`; DeployError when it is not one."""
        if overlay is None:
            return cls(manifests.load(folder))
        rendered = call(["kubectl", "kustomize", str(overlay)])
        made = cls([one for one in yaml.safe_load_all(rendered) if one])
        made._restart_when_settings_change()
        return made

    @property
    def deployment(self) -> Object:
        found = [one for one in self.objects if one["kind"] == "Deployment" and self._serves(one)]
        if len(found) != 1:
            raise DeployError(
                f"the manifests hold {len(found)} Deployments labelled {NAME_LABEL}: {NAME}, track: stable, not one"
            )
        return found[0]

    @staticmethod
    def _serves(deployment: Object) -> bool:
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        return (labels.get(NAME_LABEL), labels.get("track")) == (NAME, "stable")

    @property
    def name(self) -> str:
        """Of the Deployment."""
        return str(self.deployment["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.deployment["metadata"].get("namespace", "default"))

    @property
    def selector(self) -> str:
        """Of the Deployment's pods and ReplicaSets, as kubectl takes it."""
        labels = self.deployment["spec"]["selector"]["matchLabels"]
        return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))

    @property
    def image(self) -> str:
        return str(manifests.container(self.deployment)["image"])

    @property
    def own(self) -> list[Object]:
        """The objects in the namespace."""
        return [one for one in self.objects if one["kind"] not in CLUSTER_WIDE]

    def of_kind(self, *kinds: str) -> list[Object]:
        return [one for one in self.objects if one["kind"] in kinds]

    def minimum(self) -> int:
        """Pods that are to be ready: the autoscaler's least number, or the Deployment's own."""
        for kind, least in (("HorizontalPodAutoscaler", "minReplicas"), ("ScaledObject", "minReplicaCount")):
            for one in self.of_kind(kind):
                if one["spec"]["scaleTargetRef"]["name"] == self.name:
                    return int(one["spec"].get(least, 1))
        return int(self.deployment["spec"].get("replicas", 1))

    def running(self, image: str, notes: dict[str, str]) -> Installation:
        """The same with this image, a reference by digest, and these annotations of the Deployment."""
        manifests.require_digest(image)
        made = Installation(copy.deepcopy(self.objects))
        manifests.container(made.deployment)["image"] = image
        made.deployment["metadata"].setdefault("annotations", {}).update(notes)
        return made

    def settings(self, container: Object) -> dict[str, str]:
        """What `envFrom` brings a container, as far as the ConfigMaps are among the objects."""
        maps = {one["metadata"]["name"]: one.get("data", {}) for one in self.of_kind("ConfigMap")}
        names = [one["configMapRef"]["name"] for one in container.get("envFrom", []) if "configMapRef" in one]
        return {key: value for name in names for key, value in maps.get(name, {}).items()}

    def _restart_when_settings_change(self) -> None:
        """Pods read their settings at the start: the hash that `make manifests` writes is renewed for an overlay's."""
        for one in self.of_kind("Deployment"):
            template = one["spec"]["template"]
            for container in _own(template):
                data = json.dumps(self.settings(container), sort_keys=True)
                template["metadata"].setdefault("annotations", {})[CONFIG_HASH] = hashlib.sha256(
                    data.encode()
                ).hexdigest()[:16]


def _own(template: Object) -> Iterator[Object]:
    return (one for one in template["spec"]["containers"] if one["name"] == NAME)
