"""Keep the manifests in step with what they repeat: `make manifests [IMAGE=REF@sha256:...] [CANARY=REF@sha256:...]`.

- k8s/deployment.yaml names the released image by its digest (IMAGE) and a hash of configmap.yaml; the same for the
  canary (CANARY). Both are edited in place, comments stay; commit them.
- k8s/monitoring/prometheusrule.yaml and dashboards.yaml hold monitoring/alerts.yml and the Grafana dashboards.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import yaml

from training.champion import replace_text
from training.command import run_command

FOLDER = Path(__file__).parent
NAMESPACE = "cats-vs-dogs"
NAME = "classifier"  # of Deployment, Service, ConfigMap and container
CONFIG_HASH = "cats-vs-dogs/config"  # annotation of the pods
DIGEST = re.compile(r"\S+@sha256:[0-9a-f]{64}")
UNRELEASED = "@sha256:" + "0" * 64

Object = dict[str, Any]


class ManifestError(RuntimeError):
    """The manifests cannot be used as they are."""


def load(folder: Path = FOLDER) -> list[Object]:
    """The objects of `folder` in the order of `kubectl apply -f`; subfolders are not looked into."""
    return [one for path in sorted(folder.glob("*.yaml")) for one in yaml.safe_load_all(path.read_text()) if one]


def find(objects: list[Object], kind: str, name: str = NAME) -> Object:
    return next(one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name))


def container(deployment: Object) -> Object:
    """The one that serves."""
    containers: list[Object] = deployment["spec"]["template"]["spec"]["containers"]
    return next(one for one in containers if one["name"] == NAME)


def with_image(objects: list[Object], image: str) -> list[Object]:
    """The same objects, the Deployment running `image`, a reference by digest."""
    require_digest(image)
    container(find(objects, "Deployment"))["image"] = image
    return objects


def require_digest(image: str) -> None:
    """ManifestError unless `image` is NAME@sha256:..., which always means the same bytes."""
    if not DIGEST.fullmatch(image):
        raise ManifestError(f"{image!r} may mean another image tomorrow: name it by digest, NAME@sha256:...")


def config_hash(folder: Path = FOLDER) -> str:
    """16 hex digits over the settings in configmap.yaml."""
    data = find(load(folder), "ConfigMap")["data"]
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def pin(path: Path, image: str | None, config: str) -> None:
    """Write image and hash into a Deployment's file; nothing else of it changes."""
    text = re.sub(rf'({CONFIG_HASH}: )"\w*"', rf'\1"{config}"', path.read_text())
    if image is not None:
        require_digest(image)
        text = re.sub(r"(\bimage: )\S+", rf"\g<1>{image}", text)
    replace_text(path, text)


def main() -> None:
    parser = argparse.ArgumentParser("python -m k8s.manifests", description=__doc__)
    parser.add_argument("--image", metavar="REF", help="released image by digest, into k8s/deployment.yaml")
    parser.add_argument("--canary", metavar="REF", help="challenger's image by digest, into k8s/canary/deployment.yaml")
    arguments = parser.parse_args()
    config = config_hash()
    pin(FOLDER / "deployment.yaml", arguments.image, config)
    pin(FOLDER / "canary/deployment.yaml", arguments.canary, config)
    print("k8s/deployment.yaml, k8s/canary/deployment.yaml are in step")


if __name__ == "__main__":
    run_command(main, (ManifestError, OSError))
