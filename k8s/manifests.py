"""Write released digests into the manifests, and update the copies that k8s/ keeps of other files.

`make manifests [IMAGE=REF@sha256:...] [CANARY=REF@sha256:...]`:

- k8s/deployment.yaml and k8s/monitoring/drift.yaml name the released image by its digest (IMAGE), the canary its own
  (CANARY), Deployments a hash of configmap.yaml. They are edited in place, comments stay; commit them.
- k8s/monitoring/prometheusrule.yaml and dashboards.yaml hold monitoring/alerts.yml and the Grafana dashboards.
- k8s/overlays/base/ holds k8s/*.yaml, because Kustomize takes no base that contains the overlay.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import yaml

from training.common.command import run_command
from training.common.errors import ExpectedError
from training.common.files import write_text

FOLDER = Path(__file__).parent
MONITORING = FOLDER.parent / "monitoring"
NAMESPACE = "cats-vs-dogs"
NAME = "classifier"  # of Deployment, Service, ConfigMap and container
CONFIG_HASH = "cats-vs-dogs/config"  # annotation of the pods
DIGEST = re.compile(r"\S+@sha256:[0-9a-f]{64}")
BASE = Path("overlays/base/k8s.yaml")
UNRELEASED = "@sha256:" + "0" * 64

Object = dict[str, Any]


class ManifestError(ExpectedError):
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
        raise ManifestError(f"{image!r} may be a different image tomorrow: name it by digest, NAME@sha256:...")


def config_hash(folder: Path = FOLDER) -> str:
    """16 hex digits over the settings in configmap.yaml."""
    data = find(load(folder), "ConfigMap")["data"]
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def pin(folder: Path, image: str | None, config: str | None = None) -> None:
    """Write image and hash of the settings into what `folder` deploys; nothing else of the files changes."""
    for path in (folder / "deployment.yaml", folder / "monitoring/drift.yaml"):
        if not path.is_file():
            continue
        text = re.sub(rf'({CONFIG_HASH}: )"\w*"', rf'\1"{config or config_hash()}"', path.read_text())
        if image is not None:
            text = re.sub(r"(\bimage: )\S+", rf"\g<1>{image}", text)
        write_text(path, text)


def write_base(folder: Path) -> None:
    """Renew the copy from which overlays start."""
    write_text(folder / BASE, base(folder))


def base(folder: Path = FOLDER) -> str:
    """The files that `kubectl apply -f` takes, as one."""
    texts = [path.read_text() for path in sorted(folder.glob("*.yaml"))]
    return "# Made by `make manifests` out of k8s/*.yaml: edit those.\n" + "---\n".join(texts)


def _prometheus_rule(alerts: Path = MONITORING / "alerts.yml") -> Object:
    """The alerts as the Prometheus operator takes them."""
    return _labelled("monitoring.coreos.com/v1", "PrometheusRule", NAME) | {"spec": yaml.safe_load(alerts.read_text())}


def dashboards(folder: Path = MONITORING / "grafana/dashboards") -> list[Object]:
    """One ConfigMap for each dashboard, found by the label that Grafana's sidecar looks for."""
    found = []
    for path in sorted(folder.glob("*.json")):
        one = _labelled("v1", "ConfigMap", f"{NAME}-dashboard-{path.stem}")
        one["metadata"]["labels"]["grafana_dashboard"] = "1"
        found.append(one | {"data": {path.name: path.read_text()}})
    return found


def generated() -> dict[Path, str]:
    """The files that repeat others, and what they must hold."""
    note = "# Made by `make manifests` out of {}: edit that.\n"
    return {
        FOLDER / "monitoring/prometheusrule.yaml": note.format("monitoring/alerts.yml") + _dump([_prometheus_rule()]),
        FOLDER / BASE: base(),
        FOLDER / "monitoring/dashboards.yaml": note.format("monitoring/grafana/dashboards/") + _dump(dashboards()),
    }


def _labelled(version: str, kind: str, name: str) -> Object:
    labels = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/part-of": NAMESPACE}
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
    }


class _Dumper(yaml.SafeDumper):
    """Text of several lines stays text of several lines."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _dump(objects: list[Object]) -> str:
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m k8s.manifests", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", metavar="REF", help="released image by digest, into k8s/deployment.yaml")
    parser.add_argument("--canary", metavar="REF", help="challenger's image by digest, into k8s/canary/deployment.yaml")
    arguments = parser.parse_args()
    for image in filter(None, (arguments.image, arguments.canary)):
        require_digest(image)
    pin(FOLDER, arguments.image)
    pin(FOLDER / "canary", arguments.canary)
    for path, text in generated().items():
        write_text(path, text)
    print("the manifests are up to date")


if __name__ == "__main__":
    run_command(main)
