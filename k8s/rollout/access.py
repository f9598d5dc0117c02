"""What the account must be allowed to do, asked before anything begins; k8s/rbac/deployer.yaml grants it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from k8s.manifests import Object
from k8s.rollout.installation import CLUSTER_WIDE
from k8s.rollout.kubectl import Kubectl
from k8s.target import DeployError

REVIEWS = "/apis/authorization.k8s.io/v1"
SERVED = ("get", "create", "patch")  # of the objects that are applied


@dataclass(frozen=True, order=True)
class Permission:
    """A verb on a resource, as RBAC has them; `resource` may name a subresource."""

    group: str
    resource: str
    verb: str

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}" + (f".{self.group}" if self.group else "")


ALWAYS = tuple(  # whatever the manifests hold
    Permission(group, resource, verb)
    for group, resource, verbs in (
        ("", "namespaces", ("get",)),
        ("", "pods", ("get", "list", "create", "delete")),  # the candidate
        ("", "pods/log", ("get",)),
        ("", "pods/portforward", ("get", "create")),
        ("", "events", ("list",)),
        ("apps", "deployments", ("list",)),
        ("apps", "replicasets", ("list",)),
        ("batch", "cronjobs", ("get", "list", "patch")),  # the drift check gets the image too
        ("coordination.k8s.io", "leases", SERVED),
    )
    for verb in verbs
)


def wanted(objects: Iterable[Object]) -> list[Permission]:
    """For a roll-out of these objects; what lies outside of their namespace exists already."""
    kinds = {(one["apiVersion"], one["kind"]) for one in objects if one["kind"] not in CLUSTER_WIDE}
    applied = [Permission(_group_of(version), plural(kind), verb) for version, kind in kinds for verb in SERVED]
    return sorted({*ALWAYS, *applied})


def _group_of(version: str) -> str:
    return version.partition("/")[0] if "/" in version else ""


def plural(kind: str) -> str:
    """The resource of a kind, by the rule that Kubernetes and its operators follow."""
    word = kind.lower()
    if word.endswith("y"):
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith(("s", "x", "ch")) else f"{word}s"


def require(kubectl: Kubectl, permissions: list[Permission]) -> None:
    """DeployError names what the account may not do. One request; a second for each that the first leaves open."""
    missing = [one for one in permissions if not _granted(kubectl, one)] if _rules_lack(kubectl, permissions) else []
    if missing:
        named = ", ".join(map(str, missing))
        raise DeployError(
            f"namespace {kubectl.namespace}: this account may not {named}; k8s/rbac/deployer.yaml grants what is needed"
        )


def _rules_lack(kubectl: Kubectl, permissions: list[Permission]) -> bool:
    """Whether the list of the account's rules leaves any of them out: some authorizers cannot list theirs."""
    rules = list(_rules(kubectl))
    return any(not any(allows(rule, one) for rule in rules) for one in permissions)


def _rules(kubectl: Kubectl) -> Iterator[Object]:
    review = {"kind": "SelfSubjectRulesReview", "spec": {"namespace": kubectl.namespace}}
    yield from _ask(kubectl, "selfsubjectrulesreviews", review).get("resourceRules", [])


def _granted(kubectl: Kubectl, one: Permission) -> bool:
    resource, _, subresource = one.resource.partition("/")
    asked = {"namespace": kubectl.namespace, "group": one.group, "resource": resource, "verb": one.verb}
    spec = {"resourceAttributes": asked | ({"subresource": subresource} if subresource else {})}
    review = {"kind": "SelfSubjectAccessReview", "spec": spec}
    return bool(_ask(kubectl, "selfsubjectaccessreviews", review).get("allowed"))


def _ask(kubectl: Kubectl, resource: str, review: Object) -> Object:
    text = json.dumps({"apiVersion": "authorization.k8s.io/v1", "metadata": {}} | review)
    status: Object = json.loads(kubectl("create", "--raw", f"{REVIEWS}/{resource}", "-f", "-", text=text))["status"]
    return status


def allows(rule: Object, one: Permission) -> bool:
    """Whether an RBAC rule for all names of a resource grants it."""
    if rule.get("resourceNames"):
        return False
    parts = ((rule.get("apiGroups"), one.group), (rule.get("resources"), one.resource), (rule.get("verbs"), one.verb))
    return all(granted and (value in granted or "*" in granted) for granted, value in parts)
