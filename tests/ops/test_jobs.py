"""The training job: valid on every Kubernetes that is supported, its parts fit together, its pods are restricted."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
OBJECTS = {one["kind"]: one for one in yaml.safe_load_all((ROOT / "k8s/jobs/train.yaml").read_text())}
JOB = OBJECTS["Job"]["spec"]
POD = JOB["template"]["spec"]
CONTAINERS = [*POD["initContainers"], *POD["containers"]]


@pytest.fixture(params=CONTAINERS, ids=lambda container: container["name"])
def container(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.param
    return found


@pytest.mark.parametrize("version", ["1.30", "1.33", "1.37"])
@pytest.mark.parametrize("kind", OBJECTS)
def test_schemas(kind: str, version: str) -> None:
    kubernetes_validate.validate(OBJECTS[kind], version, strict=True)


def test_pods_find_each_other() -> None:
    service, labels = OBJECTS["Service"], JOB["template"]["metadata"]["labels"]
    variables = {one["name"]: one.get("value") for one in POD["containers"][0]["env"]}
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert POD["subdomain"] == service["metadata"]["name"]
    assert variables["LEADER"] == f"{OBJECTS['Job']['metadata']['name']}-0.{POD['subdomain']}"
    assert f"--master-port {service['spec']['ports'][0]['port']}" in POD["containers"][0]["args"][0]
    policy = OBJECTS["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["ingress"][0]["from"][0]["podSelector"] == policy["podSelector"]


def test_there_are_as_many_pods_as_torchrun_waits_for() -> None:
    variables = {one["name"]: one.get("value") for one in POD["containers"][0]["env"]}
    assert JOB["completionMode"] == "Indexed"
    assert JOB["completions"] == JOB["parallelism"] == int(variables["NODES"])


def test_pods_are_restricted(container: dict[str, Any]) -> None:
    assert POD["securityContext"]["runAsNonRoot"]
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert POD["automountServiceAccountToken"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {"requests", "limits"} == set(container["resources"])
    assert "@sha256:" in container["image"]


def test_what_is_written_to_is_a_volume(container: dict[str, Any]) -> None:
    volumes = {one["name"] for one in POD["volumes"]}
    mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
    assert set(mounts.values()) <= volumes
    homes = [one["value"] for one in container["env"] if one["name"] in ("HOME", "BENTOML_HOME")]
    for path in (container["workingDir"], *homes):
        assert any(Path(path).is_relative_to(mount) for mount in mounts)


def test_scripts_are_bash_and_name_stages(container: dict[str, Any]) -> None:
    script = container["args"][0]
    assert container["command"] == ["bash", "-euc"]
    assert subprocess.run(["bash", "-n", "-c", script], check=False).returncode == 0
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    named = {"prepare": "dvc repro prepare", "train": "dvc commit --force train"}[container["name"]]
    assert named in script
    assert named.split()[-1] in stages
