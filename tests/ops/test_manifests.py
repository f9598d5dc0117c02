"""k8s/: every object against the schemas of eight Kubernetes releases, and all of them with one another."""

from __future__ import annotations

import copy
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s import manifests
from k8s.manifests import CONFIG_HASH, ManifestError
from k8s.rollout.installation import Installation
from tests.ops.manifest_checks import INTERNAL, VERSIONS, Object, problems, schema_problems
from tests.service.server import environment
from tests.tiny import tiny_model_folder
from training.serving import settings
from training.serving.api import docs

ROOT = manifests.FOLDER.parent
DIGEST = "sha256:" + "a" * 64


@functools.cache
def _everything() -> list[Object]:
    folders = (manifests.FOLDER, manifests.FOLDER / "canary", manifests.FOLDER / "monitoring")
    return [one for folder in folders for one in manifests.load(folder)]


def everything() -> list[Object]:
    """What a cluster with the Prometheus operator and a canary is given, in that order."""
    return copy.deepcopy(_everything())


def test_the_plain_apply_brings_what_is_promised() -> None:
    kinds = [one["kind"] for one in manifests.load()]
    assert (kinds[0], manifests.load()[0]["metadata"]["name"]) == ("Namespace", manifests.NAMESPACE)
    assert sorted(kinds) == [
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "Ingress",
        "Namespace",
        "NetworkPolicy",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Service",
        "ServiceAccount",
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_fits_the_schema(version: str) -> None:
    assert [text for one in everything() for text in schema_problems(one, version)] == []


def test_the_objects_fit_one_another() -> None:
    assert problems(manifests.load()) == []
    assert problems(everything()) == []


def test_what_the_service_documents_is_what_the_ingress_shows() -> None:
    rule = manifests.find(manifests.load(), "Ingress")["spec"]["rules"][0]
    shown = {path["path"] for path in rule["http"]["paths"]}
    documented = set(docs.document(settings.load(ROOT, {}), ("cat", "dog"), "1", keyed=False)["paths"])
    assert documented - INTERNAL <= shown


def test_what_repeats_another_file_is_in_step() -> None:
    for path, text in manifests.generated().items():
        assert path.read_text() == text, f"`make manifests` renews {path.name}"
    for folder in (manifests.FOLDER, manifests.FOLDER / "canary"):
        [deployment] = [one for one in manifests.load(folder) if one["kind"] == "Deployment"]
        noted = deployment["spec"]["template"]["metadata"]["annotations"][CONFIG_HASH]
        assert noted == manifests.config_hash(), "`make manifests` renews the hash of configmap.yaml"


def test_the_script_of_the_daily_drift_check_tidies_up_and_leaves_its_finding(tmp_path: Path) -> None:
    [job] = [one for one in manifests.load(manifests.FOLDER / "monitoring") if one["kind"] == "CronJob"]
    [check] = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    [script] = check["args"]
    logs = tmp_path / "logs"
    logs.mkdir()
    for name, days in (("requests-gone-7.jsonl", 32), ("requests-quiet-7.jsonl", 29), ("feedback.jsonl", 400)):
        (logs / name).touch()
        os.utime(logs / name, (time.time() - days * 86_400,) * 2)
    model = tiny_model_folder(tmp_path / "model")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [*check["command"], script.replace("/logs", str(logs))],
        cwd=ROOT,
        env=environment(tmp_path / "home", MODEL_PATH=str(model.path), PATH=path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in logs.iterdir()} == {"requests-quiet-7.jsonl", "feedback.jsonl", "drift.json"}
    assert json.loads((logs / "drift.json").read_text())["model_sha256"] == model.sha256[:16]


def everything_on(overlay: Path) -> None:
    """Take the comment signs off what the example leaves to choose."""
    path = overlay / "kustomization.yaml"
    head, _, rest = path.read_text().partition("resources:\n")
    path.write_text(f"{head}resources:\n" + re.sub(r"^( *)# (?=( *- |  |secretGen))", r"\1", rest, flags=re.MULTILINE))
    path = overlay / "deployment.yaml"
    path.write_text(path.read_text().replace("# priorityClassName", "priorityClassName"))
    (overlay / "api-keys.env").write_text("keys=FIRST,SECOND\n")


@pytest.mark.parametrize("whole", [False, True])
def test_an_overlay_makes_an_installation_of_its_own(whole: bool, tmp_path: Path) -> None:
    """The example as it is, and with all that it offers; the objects fit their schemas and one another."""
    shutil.copytree(manifests.FOLDER, tmp_path / "k8s", ignore=shutil.ignore_patterns("__pycache__"))
    overlay = tmp_path / "k8s/overlays/example"
    if whole:
        everything_on(overlay)
    made = Installation.read(manifests.FOLDER, overlay)
    assert [text for one in made.objects for text in schema_problems(one, VERSIONS[-1])] == []
    assert problems(made.objects) == []
    pod, own = made.deployment["spec"]["template"]["spec"], manifests.container(made.deployment)
    assert (made.namespace, made.name, made.minimum()) == ("pictures", "classifier", 3)
    assert own["image"].startswith("registry.example.org/vision/cats-vs-dogs@sha256:")
    assert (own["resources"]["limits"]["cpu"], pod["imagePullSecrets"]) == ("4", [{"name": "registry"}])
    assert made.of_kind("Ingress")[0]["spec"]["rules"][0]["host"] == "pictures.example.org"
    assert made.settings(own)["SERVE_TIMEOUT"] == "20"
    assert made.deployment["spec"]["template"]["metadata"]["annotations"][CONFIG_HASH] != manifests.config_hash()
    if whole:
        [keys] = made.of_kind("Secret")
        assert keys["metadata"]["name"] in {
            one["valueFrom"]["secretKeyRef"]["name"] for one in own["env"] if "valueFrom" in one
        }
        assert pod["priorityClassName"] == made.of_kind("PriorityClass")[0]["metadata"]["name"]
        assert {"name": "logs", "persistentVolumeClaim": {"claimName": "classifier-logs"}} in pod["volumes"]
        assert made.of_kind("PersistentVolumeClaim")[0]["spec"]["storageClassName"] == "nfs"
        assert len(made.of_kind("Deployment")) == 2
        assert (len(made.of_kind("ScaledObject")), made.of_kind("HorizontalPodAutoscaler")) == (1, [])
        rules = made.of_kind("HTTPRoute")[0]["spec"]["rules"]
        routed = {match["path"]["value"] for rule in rules for match in rule["matches"]}
        paths = made.of_kind("Ingress")[0]["spec"]["rules"][0]["http"]["paths"]
        assert routed == {one["path"].rstrip("/") or "/" for one in paths}


def test_the_bases_of_overlays_hold_what_the_plain_apply_takes() -> None:
    for folder in (manifests.FOLDER / "monitoring", manifests.FOLDER / "canary"):
        base = yaml.safe_load((folder / "Kustomization").read_text())
        assert base["resources"] == sorted(path.name for path in folder.glob("*.yaml"))


def test_the_canary_differs_in_name_track_image_and_number_only() -> None:
    [stable] = [one for one in manifests.load() if one["kind"] == "Deployment"]
    [canary] = manifests.load(manifests.FOLDER / "canary")
    assert canary["spec"].pop("replicas") == 1
    manifests.container(canary)["image"] = manifests.container(stable)["image"]
    text = yaml.safe_dump(canary).replace("track: canary", "track: stable").replace("classifier-canary", "classifier")
    assert yaml.safe_load(text) == stable


def test_pin_writes_the_digest_and_nothing_else(tmp_path: Path) -> None:
    before = (manifests.FOLDER / "deployment.yaml").read_text()
    (tmp_path / "deployment.yaml").write_text(before)
    manifests.pin(tmp_path, f"registry.example/cats-vs-dogs@{DIGEST}", "0123456789abcdef")
    lines = (tmp_path / "deployment.yaml").read_text().splitlines()
    changed = [line.strip() for line in lines if line not in before.splitlines()]
    assert changed == ['cats-vs-dogs/config: "0123456789abcdef"', f"image: registry.example/cats-vs-dogs@{DIGEST}"]
    assert len(lines) == len(before.splitlines())


@pytest.mark.parametrize("image", ["cats-vs-dogs", "cats-vs-dogs:latest", "cats-vs-dogs@sha256:abc", f"a b@{DIGEST}"])
def test_only_a_digest_is_pinned(image: str) -> None:
    with pytest.raises(ManifestError, match="name it by digest"):
        manifests.with_image(manifests.load(), image)


Plant = Callable[[Callable[[str, str], Any]], Any]


def pod(get: Callable[[str, str], Any]) -> Any:
    return get("Deployment", "classifier")["spec"]["template"]["spec"]


def own(get: Callable[[str, str], Any]) -> Any:
    return pod(get)["containers"][0]


def change(found: Any, key: Any, value: Any) -> None:
    found[key] = value


FAULTS: dict[str, Plant] = {
    "unknown apiVersion": lambda get: change(get("Deployment", "classifier"), "apiVersion", "apps/v2"),
    "apiVersion of another domain": lambda get: change(get("Ingress", "classifier"), "apiVersion", "k8s.example/v1"),
    "unknown key": lambda get: change(own(get), "redinessProbe", {}),
    "wrong type": lambda get: change(own(get)["ports"][0], "containerPort", "3000"),
    "missing key": lambda get: get("Deployment", "classifier")["spec"].pop("selector"),
    "another namespace": lambda get: change(get("Service", "classifier")["metadata"], "namespace", "default"),
    "unprotected namespace": lambda get: get("Namespace", "cats-vs-dogs")["metadata"].pop("labels"),
    "selector of no pod": lambda get: change(
        get("Deployment", "classifier")["spec"]["selector"]["matchLabels"], "track", "x"
    ),
    "stable selects the canary": lambda get: get("Deployment", "classifier")["spec"]["selector"]["matchLabels"].pop(
        "track"
    ),
    "service of no pod": lambda get: change(
        get("Service", "classifier")["spec"]["selector"], "app.kubernetes.io/name", "x"
    ),
    "targetPort": lambda get: change(get("Service", "classifier")["spec"]["ports"][0], "targetPort", "web"),
    "probe port": lambda get: change(own(get)["readinessProbe"]["httpGet"], "port", 8080),
    "probe missing": lambda get: own(get).pop("startupProbe"),
    "liveness asks the model": lambda get: change(own(get)["livenessProbe"]["httpGet"], "path", "/readyz"),
    "autoscaler's target": lambda get: change(
        get("HorizontalPodAutoscaler", "classifier")["spec"]["scaleTargetRef"], "name", "x"
    ),
    "replicas twice": lambda get: change(get("Deployment", "classifier")["spec"], "replicas", 2),
    "ingress service": lambda get: change(path(get)["backend"]["service"], "name", "x"),
    "ingress port": lambda get: change(path(get)["backend"]["service"], "port", {"number": 8080}),
    "metrics on the internet": lambda get: change(path(get), "path", "/metrics"),
    "everything on the internet": lambda get: path(get).update(path="/", pathType="Prefix"),
    "ingress body size": lambda get: change(
        get("Ingress", "classifier")["metadata"]["annotations"], "nginx.ingress.kubernetes.io/proxy-body-size", "1"
    ),
    "ingress timeout": lambda get: change(
        get("Ingress", "classifier")["metadata"]["annotations"], "nginx.ingress.kubernetes.io/proxy-read-timeout", "20"
    ),
    "volume not mounted": lambda get: own(get)["volumeMounts"].pop(),
    "mount without volume": lambda get: pod(get)["volumes"].pop(),
    "claim missing": lambda get: change(get("PersistentVolumeClaim", "classifier-logs")["metadata"], "name", "x"),
    "home on the read-only root": lambda get: change(own(get)["env"][0], "value", "/home/bentoml"),
    "log on the read-only root": lambda get: change(get("ConfigMap", "classifier")["data"], "SERVE_LOG_DIR", "/var/x"),
    "unknown setting": lambda get: change(get("ConfigMap", "classifier")["data"], "SERVE_TIMEOT", "30"),
    "unknown setting of capture": lambda get: change(get("ConfigMap", "classifier")["data"], "CAPTURE_RATE", "1"),
    "setting of another type": lambda get: change(get("ConfigMap", "classifier")["data"], "SERVE_DRAIN", "soon"),
    "config map": lambda get: change(own(get)["envFrom"][0]["configMapRef"], "name", "x"),
    "service account": lambda get: change(pod(get), "serviceAccountName", "x"),
    "token": lambda get: change(pod(get), "automountServiceAccountToken", True),
    "tag instead of digest": lambda get: change(own(get), "image", "cats-vs-dogs:1"),
    "grace period": lambda get: change(pod(get), "terminationGracePeriodSeconds", 30),
    "longer timeout": lambda get: change(get("ConfigMap", "classifier")["data"], "SERVE_TIMEOUT", "120"),
    "maxUnavailable": lambda get: change(
        get("Deployment", "classifier")["spec"]["strategy"]["rollingUpdate"], "maxUnavailable", 1
    ),
    "policy of another port": lambda get: change(
        get("NetworkPolicy", "classifier")["spec"]["ingress"][0]["ports"][0], "port", 80
    ),
    "policy of no pod": lambda get: change(
        get("NetworkPolicy", "classifier")["spec"]["podSelector"]["matchLabels"], "app.kubernetes.io/name", "x"
    ),
    "policy lets everybody in": lambda get: get("NetworkPolicy", "classifier")["spec"]["ingress"][0].pop("from"),
    "policy lets out": lambda get: change(get("NetworkPolicy", "classifier")["spec"], "egress", [{}]),
    "nothing denied": lambda get: change(get("NetworkPolicy", "default-deny")["spec"], "policyTypes", ["Ingress"]),
    "budget of no pod": lambda get: change(
        get("PodDisruptionBudget", "classifier")["spec"]["selector"], "matchLabels", {"app": "x"}
    ),
    "budget of nothing": lambda get: change(get("PodDisruptionBudget", "classifier")["spec"], "maxUnavailable", 0),
    "spread of other pods": lambda get: change(
        pod(get)["topologySpreadConstraints"][0]["labelSelector"], "matchLabels", {"app": "x"}
    ),
    "root": lambda get: change(pod(get)["securityContext"], "runAsUser", 0),
    "seccomp": lambda get: pod(get)["securityContext"].pop("seccompProfile"),
    "capabilities": lambda get: own(get)["securityContext"].pop("capabilities"),
    "privileges": lambda get: change(own(get)["securityContext"], "allowPrivilegeEscalation", True),
    "writable root": lambda get: change(own(get)["securityContext"], "readOnlyRootFilesystem", False),
    "no memory limit": lambda get: own(get)["resources"]["limits"].pop("memory"),
    "request above limit": lambda get: change(own(get)["resources"]["requests"], "memory", "2Gi"),
    "monitor's port": lambda get: change(get("ServiceMonitor", "classifier")["spec"]["endpoints"][0], "port", "web"),
    "monitor's service": lambda get: change(
        get("ServiceMonitor", "classifier")["spec"]["selector"]["matchLabels"], "app.kubernetes.io/name", "x"
    ),
    "monitor's job": lambda get: change(get("ServiceMonitor", "classifier")["spec"], "jobLabel", "track"),
}


def path(get: Callable[[str, str], Any]) -> Any:
    return get("Ingress", "classifier")["spec"]["rules"][0]["http"]["paths"][0]


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str) -> None:
    objects = everything()

    def get(kind: str, wanted: str) -> Object:
        return manifests.find(objects, kind, wanted)

    FAULTS[name](get)
    changed = [one for one, former in zip(objects, everything(), strict=True) if one != former]
    misfits = [text for one in changed for text in schema_problems(one, VERSIONS[-1])]
    assert misfits or problems(objects)
