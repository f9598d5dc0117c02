"""deploy.py and the manifests on a real cluster, the one that KUBECONFIG names; its nodes pull from the registry.

    KUBECONFIG=FILE python -m pytest tests/ops/test_cluster.py -n 0      half an hour on two cores that are nodes too

Everything happens in namespaces of the test's own. The images are one of a tiny champion (DEPLOY_IMAGE: another) and
three like it: with another variable, with one that fails the smoke tests, and one that ends at once. Clients are a pod.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from k8s import manifests
from tests.ops.engine import Image, docker
from tests.ops.test_deploy import NOWHERE, Project
from tests.parts import REGISTRY
from tests.tiny import tiny_picture

pytestmark = [pytest.mark.needs("cluster", "docker", "registry"), pytest.mark.timeout(1200), pytest.mark.slow]
NAME = f"classifier-test-{os.getpid()}"
CLIENTS = 8
VARIANTS = {
    "second": "ENV VARIANT=second",
    "wrong": "ENV SERVE_MIN_SIDE=4096",
    "crash": 'ENTRYPOINT ["sh", "-c", "echo it has no model >&2; exit 3"]\nCMD []',
}
MISSING = f"{REGISTRY}/nothing@sha256:{'7' * 64}"
ASK = """
import base64, collections, http.client, signal, sys, threading
host, picture, clients = sys.argv[1], base64.b64decode(sys.argv[2]), int(sys.argv[3])
counts, over = collections.Counter(), threading.Event()
signal.signal(signal.SIGTERM, lambda *_: over.set())

def ask(kept):
    connection = None
    while not over.is_set():
        try:
            if connection is None or not kept:
                connection = http.client.HTTPConnection(host, timeout=30)
            connection.request("POST", "/predict", picture, {"Content-Type": "image/png"})
            answer = connection.getresponse()
            answer.read()
            counts[str(answer.status)] += 1
            if answer.getheader("Connection") == "close":
                connection = None
            over.wait(0.05)
        except (OSError, http.client.HTTPException) as error:
            counts[repr(error)] += 1
            connection = None

threads = [threading.Thread(target=ask, args=(number % 2 == 0,)) for number in range(clients)]
[one.start() for one in threads]
print("asking", flush=True)
over.wait()
[one.join() for one in threads]
import json
print(json.dumps(counts), flush=True)
"""


@dataclass
class Load:
    """What the clients were answered: status or error, and how often."""

    answers: dict[str, int] = field(default_factory=dict)


@dataclass
class Site:
    """A copy of the project with an overlay, and the images."""

    project: Project
    images: dict[str, str]
    namespace: str = NAME

    def deploy(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = self.project.command(*self.words(*words))
        env = self.project.environment | environment
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)

    def words(self, *words: str) -> tuple[str, ...]:
        overlay = self.project.root / "k8s/overlays" / self.namespace
        return ("--type", "k8s", "--overlay", str(overlay), "--timeout", "300", *words)

    def kubectl(self, *words: str, text: str | None = None, namespace: str = "") -> str:
        command = ["kubectl", "--namespace", namespace or self.namespace, *words]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def image(self) -> str:
        return self.kubectl(
            "get", "deployment", "classifier", "-o", "jsonpath={.spec.template.spec.containers[0].image}"
        )

    def run(self, name: str) -> None:
        """Have this image running, whatever ran before."""
        if self.image() != self.images[name]:
            done = self.deploy("--image", self.images[name], "--no-tests", "--force-conflicts")
            assert done.returncode == 0, done.stdout + done.stderr

    def overlay(self, namespace: str) -> Site:
        """Another installation beside it."""
        folder = self.project.root / "k8s/overlays" / namespace
        folder.mkdir(parents=True)
        bounds = [{"op": "replace", "path": f"/spec/{one}Replicas", "value": 2} for one in ("min", "max")]
        room = {"cpu": "50m", "memory": "300Mi"}
        requests = {"op": "replace", "path": "/spec/template/spec/containers/0/resources/requests", "value": room}
        patches = [("Deployment", [requests]), ("HorizontalPodAutoscaler", bounds)]
        made = {
            "namespace": namespace,
            "resources": ["../base", "clients.yaml"],
            "patches": [{"target": {"kind": kind}, "patch": json.dumps(patch)} for kind, patch in patches],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(made))
        policy = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "clients", "namespace": manifests.NAMESPACE},
            "spec": {
                "podSelector": {"matchLabels": {"app.kubernetes.io/name": "classifier"}},
                "policyTypes": ["Ingress"],
                "ingress": [{"ports": [{"port": "http"}]}],
            },
        }
        (folder / "clients.yaml").write_text(yaml.safe_dump(policy))
        return Site(self.project, self.images, namespace)

    @contextmanager
    def load(self) -> Iterator[Load]:
        """CLIENTS of the Service, half of them on kept connections, from a pod in a namespace of their own."""
        found, where = Load(), f"{NAME}-clients"
        host = self.kubectl("get", "service", "classifier", "-o", "jsonpath={.spec.clusterIP}")
        picture = base64.b64encode(tiny_picture(0, 1)).decode()
        container = {
            "name": "load",
            "image": self.images["first"],
            "command": ["python", "-c", ASK, host, picture, str(CLIENTS)],
        }
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "load"}}
        pod["spec"] = {"restartPolicy": "Never", "containers": [container]}
        self.kubectl("create", "-f", "-", text=json.dumps(pod), namespace=where)
        self.kubectl("wait", "pod/load", "--for=condition=Ready", "--timeout=120s", namespace=where)
        try:
            yield found
        finally:
            self.kubectl("exec", "load", "--", "sh", "-c", "kill -TERM 1", namespace=where)
            ended = "--for=jsonpath={.status.phase}=Succeeded"
            self.kubectl("wait", "pod/load", ended, "--timeout=120s", namespace=where)
            found.answers.update(json.loads(self.kubectl("logs", "load", namespace=where).splitlines()[-1]))
            self.kubectl("delete", "pod", "load", "--now", namespace=where)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    base = os.environ.get("DEPLOY_IMAGE") or Image.make(tmp_path_factory.mktemp("image") / "project", NAME).tag
    repository = f"{REGISTRY}/{NAME}"
    found = {}
    for name, line in {"first": "ENV VARIANT=first", **VARIANTS}.items():
        build = ["docker", "build", "--quiet", "--tag", f"{repository}:{name}", "-"]
        subprocess.run(build, input=f"FROM {base}\n{line}\n", text=True, check=True, capture_output=True)
        docker("push", "--quiet", f"{repository}:{name}")
        digests = docker("image", "inspect", "--format", '{{join .RepoDigests "\\n"}}', f"{repository}:{name}")
        found[name] = next(one for one in digests.splitlines() if one.startswith(f"{repository}@"))
    yield found
    docker("image", "rm", "--force", *(f"{repository}:{name}" for name in found))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, images: dict[str, str]) -> Iterator[Site]:
    """The first image is rolled out with its tests."""
    root = tmp_path_factory.mktemp("cluster")
    for number, label in enumerate(("cat", "dog")):
        (root / "pictures" / label).mkdir(parents=True)
        (root / "pictures" / label / "1.png").write_bytes(tiny_picture(number, 1))
    project = Project.copy(root / "project", SMOKE_PICTURES=str(root / "pictures"))
    made = Site(project, images).overlay(NAME)
    made.kubectl("create", "namespace", f"{NAME}-clients")
    first = made.deploy("--image", images["first"])
    assert first.returncode == 0, first.stdout + first.stderr
    yield made
    namespaces = [NAME, f"{NAME}-clients", f"{NAME}-plain", f"{NAME}-other"]
    made.kubectl("delete", "namespace", *namespaces, "--ignore-not-found", "--wait=false")


def test_the_plain_apply_is_clean_the_second_time(site: Site, tmp_path: Path) -> None:
    """All but the budget, which every kubectl calls `configured`: its selector is sent again with each patch."""
    namespace = f"{NAME}-plain"
    for path in manifests.FOLDER.glob("*.yaml"):
        text = path.read_text().replace(f": {manifests.NAMESPACE}\n", f": {namespace}\n")
        (tmp_path / path.name).write_text(text.replace("part-of: " + namespace, "part-of: cats-vs-dogs"))
    manifests.pin(tmp_path, site.images["first"], manifests.config_hash(tmp_path))
    site.kubectl("apply", "-f", str(tmp_path), namespace=namespace)
    again = site.kubectl("apply", "-f", str(tmp_path), namespace=namespace).splitlines()
    assert [line for line in again if not line.endswith("unchanged")] == [
        "poddisruptionbudget.policy/classifier configured"
    ]
    assert site.kubectl("diff", "-f", str(tmp_path), namespace=namespace) == ""
    site.kubectl("delete", "namespace", namespace, "--wait=false")


def test_users_notice_nothing_of_a_roll_out_and_its_pods_are_spread(site: Site) -> None:
    site.run("first")
    with site.load() as load:
        done = site.deploy("--image", site.images["second"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert (set(load.answers), site.image()) == ({"200"}, site.images["second"]), load.answers
    going = json.loads(site.kubectl("get", "pods", "-o", "json"))["items"]
    stay = [one for one in going if "deletionTimestamp" not in one["metadata"]]
    nodes = json.loads(site.kubectl("get", "nodes", "-o", "json"))["items"]
    assert len({one["spec"]["nodeName"] for one in stay}) == min(2, len(nodes))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wrong", "the smoke tests failed"),
        ("crash", "Error: exit code 3"),
        ("missing", "ErrImagePull"),
    ],
)
def test_an_image_that_fails_meets_no_request(site: Site, name: str, said: str) -> None:
    before = site.image()
    with site.load() as load:
        failed = site.deploy("--image", site.images.get(name, MISSING))
    assert failed.returncode == 1, failed.stdout
    assert said in failed.stderr
    assert f"{before} runs on, no request has met the new one" in failed.stderr
    assert ("it has no model" in failed.stdout) == (name == "crash")
    assert (set(load.answers), site.image()) == ({"200"}, before), load.answers
    assert "candidate" not in site.kubectl("get", "pods", "-o", "name")


@pytest.mark.parametrize("second", [signal.SIGINT, None])
def test_an_interrupted_roll_out_is_put_back_whatever_signal_follows(site: Site, second: signal.Signals | None) -> None:
    site.run("first")
    command = site.project.command(*site.words("--image", site.images["second"]))
    with site.load() as load:
        child = subprocess.Popen(command, env=site.project.environment, stdout=-1, stderr=subprocess.PIPE, text=True)
        while site.image() != site.images["second"]:
            time.sleep(0.2)
            assert child.poll() is None
        child.send_signal(signal.SIGTERM)
        if second:
            time.sleep(0.3)
            child.send_signal(second)
        _, errors = child.communicate(timeout=600)
    assert child.returncode == 128 + signal.SIGTERM, errors
    assert f"interrupted by SIGTERM; rolled back: {site.images['first']} runs again" in errors
    assert (set(load.answers), site.image()) == ({"200"}, site.images["first"]), load.answers


@pytest.mark.parametrize("maker", ["create", "helm", "set image", "server-side"])
def test_what_ran_comes_back_whoever_made_it(site: Site, maker: str) -> None:
    """The new image passes its test and then fails where users are."""
    site.run("first")
    image = site.images["first"]
    if maker == "set image":
        image = site.images["second"]
        site.kubectl("set", "image", "deployment/classifier", f"classifier={image}")
        site.kubectl("rollout", "status", "deployment/classifier", "--timeout=300s")
    else:
        found = json.loads(site.kubectl("get", "deployment", "classifier", "-o", "json"))
        kept = {"name": "classifier", "labels": found["metadata"]["labels"]}
        made = json.dumps(found | {"metadata": kept, "status": {}})
        site.kubectl("delete", "deployment", "classifier")
        create = ("create", "-f", "-", f"--field-manager={'helm' if maker == 'helm' else 'kubectl-create'}")
        apply = ("apply", "--server-side", "-f", "-")
        site.kubectl(*(apply if maker == "server-side" else create), text=made)
        site.kubectl("rollout", "status", "deployment/classifier", "--timeout=300s")
    wanted = site.images["second" if image == site.images["first"] else "first"]
    if maker == "helm":
        refused = site.deploy("--image", wanted, "--no-tests")
        assert refused.returncode == 1
        assert "another tool keeps fields that would change (helm: " in refused.stderr
    failed = site.deploy("--image", wanted, "--no-tests", "--force-conflicts", DEPLOY_URL=NOWHERE)
    assert failed.returncode == 1
    assert f"rolled back: {image} runs again" in failed.stderr, failed.stderr
    assert site.image() == image


def test_a_second_deployer_waits_or_is_refused(site: Site) -> None:
    site.run("first")
    command = site.project.command(*site.words("--image", site.images["second"]))
    child = subprocess.Popen(command, env=site.project.environment, stdout=-1, stderr=subprocess.PIPE, text=True)
    while not site.kubectl("get", "lease", "classifier-deploy", "-o", "jsonpath={.spec.holderIdentity}"):
        time.sleep(0.2)
        assert child.poll() is None
    elsewhere = Project.copy(site.project.root.parent / "elsewhere")
    shutil.copytree(site.project.root / "k8s/overlays", elsewhere.root / "k8s/overlays", dirs_exist_ok=True)
    refused = Site(elsewhere, site.images).deploy("--image", site.images["first"], "--timeout", "2")
    _, errors = child.communicate(timeout=600)
    assert (child.returncode, refused.returncode) == (0, 1), errors + refused.stderr
    assert f"is still rolling out in {NAME}" in refused.stderr
    assert site.image() == site.images["second"]


def test_the_deployers_account_is_enough(site: Site, tmp_path: Path) -> None:
    """A whole roll-out, one that goes back, and what it may not do is said before it begins."""
    site.run("first")
    rules = (manifests.FOLDER / "rbac/deployer.yaml").read_text()
    objects = list(yaml.safe_load_all(rules.replace("namespace: cats-vs-dogs", f"namespace: {NAME}")))
    site.kubectl("apply", "-f", "-", text=yaml.safe_dump_all(objects))
    config = json.loads(site.kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
    config["users"][0]["user"] = {"token": site.kubectl("create", "token", "deployer")}
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    as_it = {"KUBECONFIG": str(tmp_path / "kubeconfig")}
    done = site.deploy("--image", site.images["second"], **as_it)
    assert done.returncode == 0, done.stdout + done.stderr
    back = site.deploy("--image", site.images["first"], "--no-tests", DEPLOY_URL=NOWHERE, **as_it)
    assert f"rolled back: {site.images['second']} runs again" in back.stderr, back.stderr
    [role] = [one for one in objects if one["kind"] == "Role"]
    role["rules"] = [rule for rule in role["rules"] if rule["resources"] != ["pods/portforward"]]
    site.kubectl("apply", "-f", "-", text=yaml.safe_dump(role))
    refused = site.deploy("--image", site.images["first"], **as_it)
    assert refused.returncode == 1
    assert "this account may not create pods/portforward, get pods/portforward;" in refused.stderr


def test_two_installations_stand_side_by_side(site: Site) -> None:
    other = site.overlay(f"{NAME}-other")
    before = {path: path.read_bytes() for path in (site.project.root / "k8s").rglob("*.yaml")}
    done = other.deploy("--image", site.images["second"])
    assert done.returncode == 0, done.stdout + done.stderr
    for one in (site, other):
        with one.load() as load:
            time.sleep(2)
        assert load.answers.keys() == {"200"}, load.answers
    assert {path: path.read_bytes() for path in (site.project.root / "k8s").rglob("*.yaml")} == before
