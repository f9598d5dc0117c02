"""Faults that no schema shows, because they lie between objects: names, ports, labels, sums of seconds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from kubernetes_validate import SchemaNotFoundError, ValidationError, validate

from k8s import manifests
from k8s.rollout.installation import CLUSTER_WIDE
from training.params import Serve
from training.serving import settings

Object = dict[str, Any]
VERSIONS = tuple(f"1.{minor}" for minor in range(30, 38))
NAME, UID = manifests.NAME, 1034
GROUPS = ("apps/v1", "autoscaling/v2", "batch/v1", "networking.k8s.io/v1", "policy/v1", "scheduling.k8s.io/v1")
API_VERSIONS = {"v1", *GROUPS}
OPERATOR = {  # their own kinds, of which Kubernetes has no schema
    "gateway.networking.k8s.io/v1",
    "keda.sh/v1alpha1",
    "monitoring.coreos.com/v1",
}
INTERNAL = {"/metrics", "/livez", "/readyz"}
SPARE_S = 5  # of the grace period, beyond drain and timeout
UNITS = {"": 1, "m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def problems(objects: list[Object]) -> list[str]:
    """Everything that is wrong between objects that are applied together, in the order of the files."""
    return [text for check in CHECKS for text in check(objects)]


def schema_problems(one: Object, version: str) -> Iterator[str]:
    """Against Kubernetes's own schema, no unknown key allowed; an unknown apiVersion or kind is a fault too.

    kubernetes-validate leaves the domain of an apiVersion out when it looks for the schema.
    """
    if one["apiVersion"] in OPERATOR:
        return
    if one["apiVersion"] not in API_VERSIONS:
        yield f"{one['kind']}: no apiVersion {one['apiVersion']}"
        return
    try:
        validate(one, version, strict=True)
    except ValidationError as error:
        yield f"{one.get('kind')}: {'.'.join(map(str, error.path))}: {error.message}"
    except SchemaNotFoundError as error:
        yield f"{one.get('kind')}: {error}"


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [one for one in objects if one["kind"] == kind]


def templates(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Name and pod template of everything that makes pods."""
    for one in objects:
        if one["kind"] == "Deployment":
            yield one["metadata"]["name"], one["spec"]["template"]
        if one["kind"] == "CronJob":
            yield one["metadata"]["name"], one["spec"]["jobTemplate"]["spec"]["template"]


def selects(selector: dict[str, str], template: Object) -> bool:
    labels: dict[str, str] = template["metadata"]["labels"]
    return selector.items() <= labels.items()


def containers(template: Object) -> list[Object]:
    found: list[Object] = template["spec"]["containers"]
    return found


def ports(template: Object) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for one in containers(template) for port in one.get("ports", [])}


def amount(quantity: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(\D*)", quantity).groups()  # type: ignore[union-attr]
    return float(number) * UNITS[unit]


def placed(objects: list[Object]) -> Iterator[str]:
    names = [one["metadata"]["name"] for one in of_kind(objects, "Namespace")]
    if names and objects[0]["kind"] != "Namespace":
        yield "the namespace is not applied first"
    for one in objects:
        if one["kind"] not in CLUSTER_WIDE and [one["metadata"].get("namespace")] != names:
            yield f"{one['kind']} {one['metadata']['name']} is in namespace {one['metadata'].get('namespace')}"
    for one in of_kind(objects, "Namespace"):
        if one["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
            yield "the namespace does not enforce restricted pods"


def deployments_select_their_pods(objects: list[Object]) -> Iterator[str]:
    for one in of_kind(objects, "Deployment"):
        if not selects(one["spec"]["selector"]["matchLabels"], one["spec"]["template"]):
            yield f"Deployment {one['metadata']['name']} does not select its own pods"


def deployments_select_nobody_elses(objects: list[Object]) -> Iterator[str]:
    deployments = of_kind(objects, "Deployment")
    for one in deployments:
        for other in deployments:
            if one is not other and selects(one["spec"]["selector"]["matchLabels"], other["spec"]["template"]):
                yield f"Deployment {one['metadata']['name']} selects pods of {other['metadata']['name']}"


def rolling_updates_lose_nobody(objects: list[Object]) -> Iterator[str]:
    config = _config(objects)
    for one in of_kind(objects, "Deployment"):
        spec = one["spec"]
        if spec.get("strategy", {}).get("rollingUpdate", {}).get("maxUnavailable") != 0:
            yield "maxUnavailable is not 0"
        if config is None:
            continue
        needed = config.drain + config.timeout + SPARE_S
        if spec["template"]["spec"].get("terminationGracePeriodSeconds", 30) < needed:
            yield f"the grace period is shorter than drain, timeout and {SPARE_S} s together: {needed:g} s"


def services(objects: list[Object]) -> Iterator[str]:
    for one in of_kind(objects, "Service"):
        chosen = [template for _, template in templates(objects) if selects(one["spec"]["selector"], template)]
        if not chosen:
            yield f"Service {one['metadata']['name']} selects no pod"
        for port in one["spec"]["ports"]:
            for template in chosen:
                if port["targetPort"] not in {*ports(template), *ports(template).values()}:
                    yield f"targetPort {port['targetPort']} is no port of the pods"


def probes(objects: list[Object]) -> Iterator[str]:
    for one in of_kind(objects, "Deployment"):
        for container in containers(one["spec"]["template"]):
            asked = {}
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                get = container.get(kind, {}).get("httpGet", {})
                asked[kind] = get.get("path")
                if get.get("port") not in {*ports(one["spec"]["template"]), *ports(one["spec"]["template"]).values()}:
                    yield f"{kind} asks port {get.get('port')}, which the pod has not"
            if (
                len(set(asked.values())) < 3
                or asked["readinessProbe"] != "/readyz"
                or asked["livenessProbe"] != "/livez"
            ):
                yield f"the probes ask {asked}"


def autoscaler(objects: list[Object]) -> Iterator[str]:
    for one in of_kind(objects, "HorizontalPodAutoscaler"):
        target = one["spec"]["scaleTargetRef"]
        found = [d for d in of_kind(objects, "Deployment") if d["metadata"]["name"] == target["name"]]
        if not found or (target["kind"], target["apiVersion"]) != ("Deployment", found[0]["apiVersion"]):
            yield f"the autoscaler's target {target} does not exist"
        elif "replicas" in found[0]["spec"]:
            yield "both the Deployment and the autoscaler say how many replicas"
        if one["spec"].get("minReplicas", 1) < 2 or one["spec"]["maxReplicas"] < one["spec"].get("minReplicas", 1):
            yield "the autoscaler's range"


def ingress(objects: list[Object]) -> Iterator[str]:
    known = {
        (one["metadata"]["name"], key)
        for one in of_kind(objects, "Service")
        for port in one["spec"]["ports"]
        for key in (port["name"], port["port"])
    }
    config = _config(objects)
    for one in of_kind(objects, "Ingress"):
        rules = [path for rule in one["spec"]["rules"] for path in rule["http"]["paths"]]
        for rule in rules:
            service = rule["backend"]["service"]
            if (service["name"], *service["port"].values()) not in known:
                yield f"Ingress {rule['path']}: no Service {service}"
        exact = {rule["path"] for rule in rules if rule["pathType"] == "Exact"}
        prefixes = [rule["path"] for rule in rules if rule["pathType"] == "Prefix"]
        if any(path in exact or any(path.startswith(prefix.rstrip("/")) for prefix in prefixes) for path in INTERNAL):
            yield "the Ingress shows what is for the cluster alone"
        hosts = {host for tls in one["spec"].get("tls", []) for host in tls["hosts"]}
        if {rule["host"] for rule in one["spec"]["rules"]} != hosts:
            yield "not every host of the Ingress has a certificate"
        notes = one["metadata"]["annotations"]
        if config and int(notes["nginx.ingress.kubernetes.io/proxy-body-size"]) != config.max_batch_bytes:
            yield "the Ingress takes other sizes than the service"
        if config and float(notes["nginx.ingress.kubernetes.io/proxy-read-timeout"]) <= config.timeout:
            yield "the Ingress gives up before the service does"


def volumes(objects: list[Object]) -> Iterator[str]:
    claims = {one["metadata"]["name"] for one in of_kind(objects, "PersistentVolumeClaim")}
    for name, template in templates(objects):
        had = {one["name"] for one in template["spec"].get("volumes", [])}
        used = {mount["name"] for one in containers(template) for mount in one.get("volumeMounts", [])}
        if had != used:
            yield f"{name}: volumes {had}, mounted {used}"
        asked = {
            one["persistentVolumeClaim"]["claimName"]
            for one in template["spec"].get("volumes", [])
            if "persistentVolumeClaim" in one
        }
        if not asked <= claims:
            yield f"{name}: no claim {asked - claims}"


def writable(objects: list[Object]) -> Iterator[str]:
    """With a read-only root, what is written to must be a volume."""
    for name, template in templates(objects):
        for one in containers(template):
            mounts = [mount["mountPath"] for mount in one.get("volumeMounts", [])]
            values = {variable["name"]: variable.get("value", "") for variable in one.get("env", [])}
            for path in ("/tmp", values.get("BENTOML_HOME", "")):
                if not any(path == mount or path.startswith(f"{mount}/") for mount in mounts):
                    yield f"{name}: {path or 'BENTOML_HOME'} cannot be written"
            config = _config(objects)
            if one["name"] == NAME and config and config.log_dir not in mounts:
                yield f"{name}: the request log {config.log_dir} is on no volume"


def configuration(objects: list[Object]) -> Iterator[str]:
    maps = {one["metadata"]["name"]: one for one in of_kind(objects, "ConfigMap")}
    accounts = {one["metadata"]["name"]: one for one in of_kind(objects, "ServiceAccount")}
    for one in of_kind(objects, "Deployment"):
        spec = one["spec"]["template"]["spec"]
        for container in containers(one["spec"]["template"]):
            for source in container.get("envFrom", []):
                if source["configMapRef"]["name"] not in maps:
                    yield f"no ConfigMap {source['configMapRef']['name']}"
        account = accounts.get(spec.get("serviceAccountName", ""))
        if account is None:
            yield f"no ServiceAccount {spec.get('serviceAccountName')}"
        elif account.get("automountServiceAccountToken", True) or spec.get("automountServiceAccountToken", True):
            yield "the pods get a token of the API server"
    if NAME in maps:
        try:
            settings.load(manifests.FOLDER.parent, maps[NAME]["data"])
            settings.load_capture(manifests.FOLDER.parent, maps[NAME]["data"])
        except settings.ParamsError as error:
            yield f"ConfigMap: {error}"


def images(objects: list[Object]) -> Iterator[str]:
    for name, template in templates(objects):
        for one in containers(template):
            if not manifests.DIGEST.fullmatch(one["image"]):
                yield f"{name}: image {one['image']} is not named by digest"


def network(objects: list[Object]) -> Iterator[str]:
    policies = of_kind(objects, "NetworkPolicy")
    if not policies:
        return
    denied = [
        one for one in policies if one["spec"]["podSelector"] == {} and not {"ingress", "egress"} & one["spec"].keys()
    ]
    if not any(set(one["spec"]["policyTypes"]) == {"Ingress", "Egress"} for one in denied):
        yield "nothing denies all traffic by default"
    serving = [template for _, template in templates(objects) if ports(template)]
    opened = [one["spec"] for one in policies if one not in denied]
    for template in serving:
        chosen = [spec for spec in opened if selects(spec["podSelector"].get("matchLabels", {}), template)]
        allowed = [
            port["port"] for spec in chosen for rule in spec.get("ingress", []) for port in rule.get("ports", [])
        ]
        if set(allowed) != set(ports(template)):
            yield f"network policies let in to {allowed}, the pods have {ports(template)}"
        if any(not rule.get("from") for spec in chosen for rule in spec.get("ingress", [])):
            yield "everybody is let in"
        if any(spec.get("egress") or "Egress" not in spec["policyTypes"] for spec in chosen):
            yield "the service may call out"


def budget(objects: list[Object]) -> Iterator[str]:
    for one in of_kind(objects, "PodDisruptionBudget"):
        if not any(selects(one["spec"]["selector"]["matchLabels"], template) for _, template in templates(objects)):
            yield "the disruption budget selects no pod"
        if one["spec"].get("maxUnavailable") in (0, "0%"):
            yield "the disruption budget blocks every node drain"


def spread(objects: list[Object]) -> Iterator[str]:
    for one in of_kind(objects, "Deployment"):
        template = one["spec"]["template"]
        constraints = template["spec"].get("topologySpreadConstraints", [])
        if not constraints:
            yield "the pods are not spread"
        if any(not selects(each["labelSelector"]["matchLabels"], template) for each in constraints):
            yield "a spread constraint counts other pods"


def restricted(objects: list[Object]) -> Iterator[str]:
    """The pod security standard `restricted`, and a read-only root."""
    for name, template in templates(objects):
        pod = template["spec"].get("securityContext", {})
        if pod.get("runAsNonRoot") is not True or pod.get("runAsUser") != UID:
            yield f"{name} may run as root, or not as the image's user"
        if pod.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{name}: no seccomp profile"
        for one in containers(template):
            own = one.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False or own.get("privileged", False):
                yield f"{name}: privileges may grow"
            if own.get("readOnlyRootFilesystem") is not True:
                yield f"{name}: the root file system can be written"
            if own.get("capabilities", {}).get("drop") != ["ALL"] or own["capabilities"].get("add"):
                yield f"{name}: capabilities are left"


def resources(objects: list[Object]) -> Iterator[str]:
    for name, template in templates(objects):
        for one in containers(template):
            requested, limit = (one.get("resources", {}).get(key, {}) for key in ("requests", "limits"))
            for kind in ("cpu", "memory"):
                if kind not in requested or kind not in limit:
                    yield f"{name}: no request or limit of {kind}"
                elif amount(requested[kind]) > amount(limit[kind]):
                    yield f"{name}: more {kind} is requested than allowed"


def scraped(objects: list[Object]) -> Iterator[str]:
    found = of_kind(objects, "Service")
    for one in of_kind(objects, "ServiceMonitor"):
        chosen = [s for s in found if one["spec"]["selector"]["matchLabels"].items() <= s["metadata"]["labels"].items()]
        if not chosen:
            yield "the ServiceMonitor selects no Service"
        known = {port["name"] for service in chosen for port in service["spec"]["ports"]}
        if not {endpoint["port"] for endpoint in one["spec"]["endpoints"]} <= known:
            yield "the ServiceMonitor asks a port that the Service has not"
        if any(service["metadata"]["labels"].get(one["spec"]["jobLabel"]) != NAME for service in chosen):
            yield f"the job is not {NAME}, as alerts and dashboards have it"
        if "namespaceSelector" in one["spec"]:  # without one it looks in its own, wherever an overlay puts it
            yield "the ServiceMonitor looks in another namespace"
        labels = [set(template["metadata"]["labels"]) for _, template in templates(objects) if ports(template)]
        if not all(set(one["spec"]["podTargetLabels"]) <= each for each in labels):
            yield "the ServiceMonitor copies a label that the pods have not"


def _config(objects: list[Object]) -> Serve | None:
    """The settings the pods run with; None when they are not among the objects, or wrong."""
    found = [one for one in of_kind(objects, "ConfigMap") if one["metadata"]["name"] == NAME]
    if not found:
        return None
    try:
        return settings.load(manifests.FOLDER.parent, found[0]["data"])
    except settings.ParamsError:
        return None


CHECKS: tuple[Callable[[list[Object]], Iterator[str]], ...] = (
    placed,
    deployments_select_their_pods,
    deployments_select_nobody_elses,
    rolling_updates_lose_nobody,
    services,
    probes,
    autoscaler,
    ingress,
    volumes,
    writable,
    configuration,
    images,
    network,
    budget,
    spread,
    restricted,
    resources,
    scraped,
)
