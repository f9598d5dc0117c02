"""A stand-in for a Kubernetes API server, for machines without a cluster: as far as deploy.py and kubectl need one.

It is not a cluster: objects are checked against Kubernetes's published schemas and kept in memory, nothing runs. A pod
is ready at once, or its image cannot be pulled, when it is one of `broken`. tests/ops/test_cluster.py has a real one.
"""

from __future__ import annotations

import copy
import json
import shutil
import textwrap
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import yaml

Object = dict[str, Any]
VERSION = "1.37"
REVISION = "deployment.kubernetes.io/revision"
RESOURCES = {  # group and version: plural: kind, whether in a namespace
    "v1": {
        "configmaps": ("ConfigMap", True),
        "events": ("Event", True),
        "namespaces": ("Namespace", False),
        "pods": ("Pod", True),
        "serviceaccounts": ("ServiceAccount", True),
        "services": ("Service", True),
    },
    "apps/v1": {"deployments": ("Deployment", True), "replicasets": ("ReplicaSet", True)},
    "autoscaling/v2": {"horizontalpodautoscalers": ("HorizontalPodAutoscaler", True)},
    "batch/v1": {"cronjobs": ("CronJob", True)},
    "coordination.k8s.io/v1": {"leases": ("Lease", True)},
    "networking.k8s.io/v1": {"ingresses": ("Ingress", True), "networkpolicies": ("NetworkPolicy", True)},
    "policy/v1": {"poddisruptionbudgets": ("PodDisruptionBudget", True)},
}


class Refused(Exception):
    """An answer of the API server that is an error."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.body = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }
        self.code = code


class Cluster:
    """The objects by address, and the images that its Deployment was given, in order."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.images: list[str] = []
        self.candidates: list[str] = []
        self.broken: set[str] = set()
        self.applied: dict[tuple[str, str], Object] = {}
        self.version = 0
        self.lock = threading.RLock()

    def lists(self, plural: str, selector: str = "", fields: str = "") -> list[Object]:
        """Objects of a resource with all of these labels; events, which are asked for by fields, there are none."""
        wanted = dict(part.split("=", 1) for part in selector.split(",") if part)
        found = [one for (kind, _), one in self.objects.items() if kind == plural]
        return [] if fields else [one for one in found if wanted.items() <= one["metadata"].get("labels", {}).items()]

    def image(self) -> str:
        """Of the Deployment as it is now; empty without one."""
        found = [one for (plural, _), one in self.objects.items() if plural == "deployments"]
        return str(found[0]["spec"]["template"]["spec"]["containers"][0]["image"]) if found else ""

    def put(self, plural: str, namespace: str, new: Object, dry: bool = False) -> Object:
        """Check as the real one does, and keep unless it is for trial."""
        if namespace and ("namespaces", namespace) not in self.objects:
            raise Refused(404, "NotFound", f'namespaces "{namespace}" not found')
        bare = {key: value for key, value in new.items() if key != "status"}
        try:
            kubernetes_validate.validate(bare, VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            raise Refused(400, "BadRequest", f"strict decoding error: {error.message}") from None
        if dry:
            return new
        key = (plural, new["metadata"]["name"])
        new["metadata"]["namespace"] = namespace
        former = self.objects.get(key, {"metadata": {}})
        self.version += 1
        metadata = new["metadata"]
        metadata["uid"] = former["metadata"].get("uid") or str(uuid.uuid4())
        metadata["resourceVersion"] = str(self.version)
        if former.get("spec") != new.get("spec"):
            metadata["generation"] = former["metadata"].get("generation", 0) + 1
            if plural == "deployments":
                self._roll(new)
            if plural == "pods":
                self.candidates.append(_image(new))
                new["status"] = self._pod_status(_image(new))
        self.objects[key] = new
        return new

    def apply(self, plural: str, namespace: str, name: str, wanted: Object, dry: bool) -> Object:
        """Server-side apply by the one owner there is: what it no longer names goes."""
        key = (plural, name)
        old, last = copy.deepcopy(self.objects.get(key, {})), self.applied.get(key, {})
        new: Object = merged(pruned(old, last, wanted), wanted)
        self.put(plural, namespace, new, dry)
        if not dry:
            self.applied[key] = wanted
        return new

    def _roll(self, deployment: Object) -> None:
        image = _image(deployment)
        self.images.append(image)
        replicas, ready = deployment["spec"].setdefault("replicas", 2), image not in self.broken  # 2: an autoscaler's
        deployment["metadata"].setdefault("annotations", {})[REVISION] = str(len(self.images))
        self._replica_set(deployment)
        deployment["status"] = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": replicas if ready else replicas + 1,
            "updatedReplicas": replicas,
            "readyReplicas": replicas,
            "availableReplicas": replicas if ready else replicas - 1,
            "conditions": [],
        }

    def _replica_set(self, deployment: Object) -> None:
        """The newest one, of the same name each time, and its pod."""
        revision = deployment["metadata"]["annotations"][REVISION]
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        self._owned("replicasets", f"set-{revision}", deployment["metadata"]["uid"], labels, {REVISION: revision})
        status = self._pod_status(_image(deployment))
        self._owned("pods", f"pod-{revision}", f"set-{revision}", labels, {})["status"] = status

    def _owned(self, plural: str, uid: str, owner: str, labels: dict[str, str], notes: dict[str, str]) -> Object:
        kind, group = next((kinds[plural][0], group) for group, kinds in RESOURCES.items() if plural in kinds)
        metadata: Object = {
            "name": "newest",
            "uid": uid,
            "labels": labels,
            "annotations": notes,
            "resourceVersion": "1",
        }
        metadata["ownerReferences"] = [{"uid": owner, "controller": True}]
        self.objects[plural, "newest"] = {"apiVersion": group, "kind": kind, "metadata": metadata}
        return self.objects[plural, "newest"]

    def _pod_status(self, image: str) -> Object:
        if image in self.broken:
            waiting = {"reason": "ErrImagePull", "message": f"{image}: not found"}
            return {"phase": "Pending", "containerStatuses": [{"name": "classifier", "state": {"waiting": waiting}}]}
        return {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}


def _image(one: Object) -> str:
    """Of a Deployment's or a pod's first container."""
    spec = one["spec"].get("template", one)["spec"]
    return str(spec["containers"][0]["image"])


def pruned(old: Any, last: Any, wanted: Any) -> Any:
    """`old` without what `last` named and `wanted` does not."""
    if not all(isinstance(one, dict) for one in (old, last, wanted)):
        return old
    kept = {key: value for key, value in old.items() if key in wanted or key not in last}
    return {key: pruned(value, last.get(key), wanted.get(key)) for key, value in kept.items()}


def patched(old: Object, patch: Any) -> Object:
    """After a JSON patch of `test`, `add` and `remove`."""
    new = copy.deepcopy(old)
    for step in patch:
        *path, last = step["path"].strip("/").split("/")
        where = new
        for part in path:
            where = where[part]
        if step["op"] == "test" and where.get(last) != step["value"]:
            raise Refused(422, "Invalid", f"testing path {step['path']} failed")
        if step["op"] == "add":
            where[last] = step["value"]
        if step["op"] == "remove":
            del where[last]
    return new


def merged(old: Any, patch: Any) -> Any:
    """`old` after a strategic merge patch: lists of named things are merged by their names."""
    if isinstance(old, list) and isinstance(patch, list) and all("name" in one for one in (*old, *patch)):
        changes = {one["name"]: one for one in patch}
        kept = [merged(one, changes.pop(one["name"], {})) for one in old]
        return kept + list(changes.values())
    if not isinstance(old, dict) or not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(old)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif not key.startswith("$"):
            result[key] = merged(old.get(key), value)
    return result


class Handler(BaseHTTPRequestHandler):
    """One request to the API server."""

    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PATCH = do_DELETE = do_GET

    def _answer(self) -> None:
        address = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(address.query).items()}
        size = int(self.headers.get("Content-Length") or 0)
        body = yaml.safe_load(self.rfile.read(size)) if size else {}
        with self.cluster.lock:
            try:
                code, answer = self._find(address.path.strip("/").split("/"), query, body)
            except Refused as error:
                code, answer = error.code, error.body
        if isinstance(answer, str):
            return self._watch(answer, query)
        self._send(code, answer)

    def _send(self, code: int, answer: Object) -> None:
        data = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _find(self, path: list[str], query: dict[str, str], body: Object) -> tuple[int, Object | str]:
        """Status and body; a string names the resource to be watched."""
        match path:
            case ["api"]:
                return 200, {"kind": "APIVersions", "versions": ["v1"]}
            case ["apis"]:
                return 200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": [*map(_group, list(RESOURCES)[1:])]}
            case ["openapi", "v3"]:
                paths = {_prefix(one): {"serverRelativeURL": f"/openapi/v3/of/{one}"} for one in RESOURCES}
                return 200, {"paths": paths}
            case ["openapi", "v3", "of", *group]:
                return 200, _openapi("/".join(group))
            case ["apis", "authorization.k8s.io", "v1", "selfsubjectrulesreviews"]:
                everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
                return 201, body | {"status": {"resourceRules": [everything], "incomplete": False}}
            case ["api", "v1", *rest]:
                return self._objects("v1", rest, query, body)
            case ["apis", group, version, *rest] if f"{group}/{version}" in RESOURCES:
                return self._objects(f"{group}/{version}", rest, query, body)
        raise Refused(404, "NotFound", "the server could not find the requested resource")

    def _objects(self, group: str, path: list[str], query: dict[str, str], body: Object) -> tuple[int, Object | str]:
        if not path:
            return 200, _resources(group)
        namespace = ""
        if path[0] == "namespaces" and len(path) > 2:
            namespace, path = path[1], path[2:]
        plural, name = path[0], path[1] if len(path) > 1 else ""
        key, dry = (plural, name or body.get("metadata", {}).get("name", "")), "dryRun" in query
        here = self.cluster.objects
        if self.command == "GET" and not name:
            if "watch" in query:
                return 200, plural
            found = self.cluster.lists(plural, query.get("labelSelector", ""), query.get("fieldSelector", ""))
            listed = {"resourceVersion": str(self.cluster.version)}
            return 200, {
                "kind": f"{RESOURCES[group][plural][0]}List",
                "apiVersion": group,
                "metadata": listed,
                "items": found,
            }
        media = self.headers.get("Content-Type", "")
        if "apply-patch" in media:
            return 200, self.cluster.apply(plural, namespace, name, body, dry)
        if self.command == "POST":
            if key in here:
                raise Refused(409, "AlreadyExists", f'{plural} "{key[1]}" already exists')
            return 201, self.cluster.put(plural, namespace, body, dry)
        if key not in here:
            raise Refused(404, "NotFound", f'{plural} "{name}" not found')
        if self.command == "DELETE":
            del here[key]
            return 200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        if self.command == "PATCH":
            new = patched(here[key], body) if "json-patch" in media else merged(copy.deepcopy(here[key]), body)
            return 200, self.cluster.put(plural, namespace, new, dry)
        return 200, here[key]

    def _watch(self, plural: str, query: dict[str, str]) -> None:
        """Tell every object once and again when it has changed, until the client goes or its time is over."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        told: dict[tuple[str, str], str] = {}
        end = time.monotonic() + float(query.get("timeoutSeconds", 60))
        try:
            while time.monotonic() < end:
                with self.cluster.lock:
                    found = {key: copy.deepcopy(one) for key, one in self.cluster.objects.items() if key[0] == plural}
                for key, one in found.items():
                    version = one["metadata"]["resourceVersion"]
                    if told.get(key) != version:
                        self._tell("MODIFIED" if key in told else "ADDED", one)
                        told[key] = version
                if query.pop("sendInitialEvents", "") == "true":
                    self._tell("BOOKMARK", _bookmark(plural, self.cluster.version))
                time.sleep(0.05)
        except OSError:
            return
        finally:
            self.close_connection = True

    def _tell(self, kind: str, one: Object) -> None:
        self.wfile.write(json.dumps({"type": kind, "object": one}).encode() + b"\n")


def _bookmark(plural: str, version: int) -> Object:
    kind, group = next((kinds[plural][0], group) for group, kinds in RESOURCES.items() if plural in kinds)
    ends = {"k8s.io/initial-events-end": "true"}
    return {"kind": kind, "apiVersion": group, "metadata": {"resourceVersion": str(version), "annotations": ends}}


def _group(name: str) -> Object:
    version = {"groupVersion": name, "version": name.split("/")[1]}
    return {"name": name.split("/")[0], "versions": [version], "preferredVersion": version}


def _prefix(group: str) -> str:
    return "api/v1" if group == "v1" else f"apis/{group}"


def _resources(group: str) -> Object:
    verbs = ["create", "delete", "get", "list", "patch", "watch"]
    known = [
        {"name": plural, "singularName": kind.lower(), "namespaced": inside, "kind": kind, "verbs": verbs}
        for plural, (kind, inside) in RESOURCES[group].items()
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": known}


def _openapi(group: str) -> Object:
    """As much as tells kubectl that the server checks fields itself."""
    name, _, version = group.rpartition("/")
    names = ("dryRun", "fieldManager", "fieldValidation")
    parameters = [{"name": one, "in": "query", "schema": {"type": "string"}} for one in names]
    paths = {}
    for plural, (kind, inside) in RESOURCES[group].items():
        patch = {
            "x-kubernetes-group-version-kind": {"group": name, "version": version, "kind": kind},
            "x-kubernetes-action": "patch",
            "parameters": parameters,
            "responses": {},
        }
        paths[f"/{_prefix(group)}/{'namespaces/{namespace}/' if inside else ''}{plural}/{{name}}"] = {"patch": patch}
    info = {"title": "Kubernetes", "version": f"v{VERSION}.0"}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": {}}}


def kubectl_with_a_way_in(folder: Path, url: str) -> Path:
    """A folder for the front of PATH: the real kubectl, but its `port-forward` leads to `url`, as no pod runs here."""
    folder.mkdir(parents=True)
    real, port = shutil.which("kubectl"), urlsplit(url).port
    script = f"""#!/bin/sh
    for word; do
        if [ "$word" = port-forward ]; then echo "Forwarding from 127.0.0.1:{port} -> 3000"; exec sleep 600; fi
    done
    exec {real} "$@"
    """
    (folder / "kubectl").write_text(textwrap.dedent(script))
    (folder / "kubectl").chmod(0o755)
    return folder


@contextmanager
def running(kubeconfig: Path) -> Iterator[Cluster]:
    """A stand-in on a free port, and a kubeconfig that names it."""
    cluster = Cluster()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"cluster": cluster}))
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "stand-in", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "stand-in", "context": {"cluster": "stand-in", "user": "nobody"}}],
        "current-context": "stand-in",
    }
    kubeconfig.write_text(yaml.safe_dump(config))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield cluster
    server.shutdown()
    server.server_close()
