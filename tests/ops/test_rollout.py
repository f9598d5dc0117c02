"""k8s/rollout/ and k8s/interrupts.py by themselves: what is read from a cluster's answers, without a cluster."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import yaml

from k8s import manifests
from k8s.interrupts import Interrupted, Interrupts
from k8s.rollout import access, candidate, rehearsal, trouble
from k8s.rollout.installation import CLUSTER_WIDE, Installation
from k8s.rollout.progress import State
from k8s.rollout.snapshot import difference
from k8s.target import DeployError

Object = dict[str, Any]


def pod(*, waiting: Object | None = None, phase: str = "Pending", **status: Any) -> Object:
    state = [{"state": {"waiting": waiting}}] if waiting else []
    return {"metadata": {"name": "p"}, "status": {"phase": phase, "containerStatuses": state} | status}


SCHEDULED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes: cpu."}
CRASHED = {"state": {"terminated": {"exitCode": 3, "reason": "Error"}}}
PODS = {
    "image": (pod(waiting={"reason": "ErrImagePull", "message": "not\n found"}), "pod p: ErrImagePull: not found"),
    "crash": (pod(phase="Failed", containerStatuses=[CRASHED]), "pod p: Error: exit code 3"),
    "memory": (
        pod(
            phase="Running",
            containerStatuses=[
                {
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
                }
            ],
        ),
        "pod p: CrashLoopBackOff: exit code 137 (OOMKilled)",
    ),
    "evicted": (pod(phase="Failed", reason="Evicted", message="no disk"), "pod p: Evicted: no disk"),
    "no room": (pod(conditions=[SCHEDULED]), "pod p: Unschedulable: 0/2 nodes: cpu."),
}


@pytest.mark.parametrize("name", PODS)
def test_a_pods_status_says_what_is_wrong(name: str) -> None:
    one, said = PODS[name]
    found = trouble.of_pod(one)
    assert (str(found), found is not None and found.patience) == (said, name == "no room")


def test_a_pod_that_starts_is_in_no_trouble() -> None:
    assert trouble.of_pod(pod(waiting={"reason": "ContainerCreating"})) is None
    assert trouble.of_pod(pod(phase="Running", containerStatuses=[{"state": {"running": {}}}])) is None


def test_a_quota_is_waited_for_as_long_as_pods_are_going() -> None:
    refused = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}
    deployment: Object = {"metadata": {"generation": 2}, "status": {"observedGeneration": 2, "conditions": [refused]}}
    going = pod()
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert str(State(deployment, None, [], []).trouble()) == "FailedCreate: exceeded quota"
    assert State(deployment, None, [], [going]).trouble() is None
    deployment["status"]["observedGeneration"] = 1
    assert State(deployment, None, [], []).trouble() is None


def test_all_pods_must_be_new_and_as_many_as_the_autoscaler_wants() -> None:
    def complete(replicas: int, updated: int, available: int) -> bool:
        status = {"observedGeneration": 1, "replicas": replicas, "updatedReplicas": updated}
        status["availableReplicas"] = available
        found = {"metadata": {"generation": 1}, "spec": {"replicas": 2}, "status": status}
        return State(found, None, [], []).complete(2)

    assert complete(2, 2, 2)
    assert not complete(3, 2, 2)  # an old pod is left
    assert not complete(2, 2, 1)
    one: Object = {"metadata": {"generation": 1}, "spec": {"replicas": 1}}
    one["status"] = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}
    assert not State(one, None, [], []).complete(2)


def test_the_patch_makes_an_object_what_it_was() -> None:
    note = "deployment.kubernetes.io/revision"
    before = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"annotations": {note: "1", "who": "helm"}, "labels": {"a": "b"}},
        "spec": {"replicas": 2},
        "status": {"readyReplicas": 2},
    }
    now = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"annotations": {note: "2", "ours": "x"}, "labels": {"a": "b"}, "resourceVersion": "9"},
        "spec": {"replicas": 2, "paused": True},
        "data": {},
    }
    assert difference(now, before) == [
        {"op": "remove", "path": "/data"},
        {"op": "add", "path": "/spec", "value": {"replicas": 2}},
        {"op": "add", "path": "/metadata/annotations", "value": {"who": "helm", note: "2"}},
    ]
    assert difference(before, before) == []


CONFLICTS = """`kubectl apply` failed: error: Apply failed with 1 conflict: conflict with "kubectl-set" using apps/v1: \
.spec.template.spec.containers[name="classifier"].image; Please review the fields above--they currently have other \
managers.; error: Apply failed with 3 conflicts: conflicts with "helm" using apps/v1:; - .spec.minReadySeconds; \
- .metadata.labels.track; conflict with "kube-controller-manager" with subresource "scale" \
using apps/v1: .spec.replicas; Please review the fields above; error: Apply failed with 1 conflict: \
conflict with "kubectl": .spec.paused; Please review"""


def test_conflicts_are_known_by_owner_and_field() -> None:
    assert rehearsal.conflicts(CONFLICTS) == {
        "kubectl-set": ['.spec.template.spec.containers[name="classifier"].image'],
        "helm": [".spec.minReadySeconds", ".metadata.labels.track"],
        "kube-controller-manager": [".spec.replicas"],
        "kubectl": [".spec.paused"],
    }
    assert rehearsal.conflicts("error: strict decoding error: unknown field") == {}
    assert [rehearsal.by_hand(one) for one in ("kubectl-set", "kubectl-client-side-apply", "helm")] == [
        True,
        True,
        False,
    ]


def test_the_deployers_role_is_what_a_roll_out_needs_and_no_more() -> None:
    objects = list(yaml.safe_load_all((manifests.FOLDER / "rbac/deployer.yaml").read_text()))
    [role] = [one for one in objects if one["kind"] == "Role"]
    granted = {
        access.Permission(group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == set(access.wanted(manifests.load()))


@pytest.mark.parametrize(
    ("kind", "resource"),
    [("Ingress", "ingresses"), ("NetworkPolicy", "networkpolicies"), ("HTTPRoute", "httproutes"), ("Lease", "leases")],
)
def test_the_resource_of_a_kind(kind: str, resource: str) -> None:
    assert access.plural(kind) == resource


def test_a_rule_for_one_name_or_without_the_verb_grants_nothing() -> None:
    one = access.Permission("apps", "deployments", "patch")
    rule = {"apiGroups": ["apps"], "resources": ["*"], "verbs": ["get", "patch"]}
    assert access.allows(rule, one)
    assert not access.allows(rule | {"resourceNames": ["x"]}, one)
    assert not access.allows(rule | {"verbs": ["get"]}, one)
    assert not access.allows(rule | {"apiGroups": [""]}, one)


@pytest.fixture
def installation() -> Installation:
    return Installation(manifests.load()).running(f"x@sha256:{'1' * 64}", {})


def test_the_candidate_is_the_pod_of_the_deployment_that_nothing_selects(installation: Installation) -> None:
    made = candidate.pod(installation, timeout=100)
    template = installation.deployment["spec"]["template"]
    labels = made["metadata"]["labels"]
    [service] = installation.of_kind("Service")
    assert not service["spec"]["selector"].items() <= labels.items()
    assert not installation.deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    own, like = made["spec"]["containers"][0], template["spec"]["containers"][0]
    assert {key: own[key] for key in own if key not in ("env", "envFrom")} == {
        key: like[key] for key in like if key not in ("env", "envFrom")
    }
    values = {one["name"]: one.get("value") for one in own["env"]}
    [settings] = installation.of_kind("ConfigMap")
    assert settings["data"].items() <= values.items()
    assert {one["name"] for one in like["env"]} <= values.keys()
    assert made["spec"]["restartPolicy"] == "Never"
    assert made["spec"]["activeDeadlineSeconds"] == 700


def test_a_service_that_would_select_the_candidate_is_refused(installation: Installation) -> None:
    installation.of_kind("Service")[0]["spec"]["selector"] = {"app.kubernetes.io/part-of": "cats-vs-dogs"}
    with pytest.raises(DeployError, match="Service classifier would select the candidate"):
        candidate.pod(installation, timeout=1)


def test_one_deployment_must_serve(installation: Installation) -> None:
    assert (installation.name, installation.namespace, installation.minimum()) == ("classifier", "cats-vs-dogs", 2)
    assert {one["kind"] for one in installation.objects} & CLUSTER_WIDE == {"Namespace"}
    with pytest.raises(DeployError, match="hold 0 Deployments"):
        _ = Installation([]).name


def test_the_first_signal_ends_the_roll_out_and_the_next_waits(capsys: pytest.CaptureFixture[str]) -> None:
    signals = Interrupts()
    with pytest.raises(Interrupted, match="interrupted by Ctrl-C") as found:
        signals.arrived(signal.SIGINT)
    assert found.value.number == signal.SIGINT
    signals.arrived(signal.SIGTERM)
    assert "SIGTERM: restoring what ran before, then stopping" in capsys.readouterr().err


def test_a_signal_waits_for_the_end_of_a_step() -> None:
    signals, done = Interrupts(), []
    with pytest.raises(Interrupted, match="SIGTERM"), signals.deferred():  # noqa: PT012
        signals.arrived(signal.SIGTERM)
        done.append("step")
    assert done == ["step"]


def test_what_failed_is_put_back_whatever_signal_comes() -> None:
    signals = Interrupts()
    signals.hold()
    signals.arrived(signal.SIGINT)
