"""Roll out an image, test it, and go back automatically if a test fails.

    python k8s/deploy.py --type docker                       the champion's image, on this machine, port 3000
    python k8s/deploy.py --type k8s --image REGISTRY/NAME:TAG    with kubectl, in its current context
    python k8s/deploy.py --type k8s --overlay FOLDER         a Kustomize folder of your own
    python k8s/deploy.py --type k8s --rollback               back to the previous image

Without --image, docker takes the newest local image of the champion, k8s the image in the manifests. Exit code 0 means
that the wanted version answers. Good or failed, each roll-out adds a line to models/deployments.jsonl. Ctrl-C ends with
130 and SIGTERM with 143, both after restoring what ran before.

In the environment:
    DEPLOY_PORT   docker: port on 127.0.0.1 (default 3000)
    DEPLOY_NAME   docker: prefix of container and network names, for a second service on the machine
    DEPLOY_URL    k8s: where the service answers after the roll-out; without it a port is forwarded to a new pod
    API_KEYS      the first key is sent; and what else tests/smoke/smoke.py reads
    MLFLOW_TRACKING_URI   an MLflow server: the registered model records the roll-out too, and
                  `python -m training.registry status` shows it on every machine
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import getpass
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, Python finds k8s/ alone

from k8s.cluster import Cluster
from k8s.docker import Docker
from k8s.interrupts import Interrupted, interrupts
from k8s.target import (
    BENTO_LABEL,
    MODEL_LABEL,
    Check,
    DeployError,
    Image,
    Lineage,
    Target,
    described,
    lineage_at,
)
from training.common.command import run_command
from training.common.table import columns, plain
from training.model import judged
from training.model import pin as pin_file
from training.model.pin import ChampionError, NoChampionError
from training.registry import deployments
from training.registry.deployments import DEPLOYED, DEPLOYMENTS_FILE, Deployment

ROOT = Path(__file__).resolve().parent.parent
SMOKE = ROOT / "tests/smoke/smoke.py"
TARGETS = ("docker", "k8s")


def checker(tests: bool) -> Check:
    """What a service must be to be left in place: it serves the image's model and passes the smoke tests (`tests`)."""

    # A registry that is away says nothing about the version that is rolled out.
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}

    def check(url: str, image: Image) -> Lineage:
        model = lineage_at(url)
        wanted = image.labels.get(MODEL_LABEL)
        if wanted and model.get("bento_tag") != wanted:
            raise DeployError(f"{url} serves {model.get('bento_tag')}, the image says {wanted}")
        command = [sys.executable, str(SMOKE), "--url", url, "--fail-on-error"]
        if tests and subprocess.run(command, check=False, env=environment, process_group=0).returncode:
            raise DeployError("the smoke tests failed, see above")
        return model

    return check


def show(title: str, target: Target) -> None:
    found = target.running()
    rows = [("what", "image", "model", "state"), *((o.name, short(o.image), o.model, o.state) for o in found)]
    print(f"\n{title} on {target.name}")
    print(columns(rows) if found else "nothing", end="\n\n", flush=True)


def short(image: str) -> str:
    """A reference with the first 12 digits of its digest."""
    name, digest, digits = image.partition("sha256:")
    return f"{name}{digest}{digits[:12]}"


def record(target: Target, image: Image, model: Lineage, result: str) -> None:
    who = f"{os.environ.get('GITHUB_ACTOR') or getpass.getuser()}@{socket.gethostname()}"
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    tag = model.get("bento_tag") or image.labels.get(MODEL_LABEL, "")
    bento = image.labels.get(BENTO_LABEL, "")
    version = str(model.get("version") or "")
    done = Deployment(now, target.name, bento, tag, image.name, image.digest, version, who, result)
    deployments.append(done, ROOT / DEPLOYMENTS_FILE)
    registry = os.environ.get("MLFLOW_TRACKING_URI", "")
    if registry.startswith(("http://", "https://")) and tag:
        try:
            deployments.share(done, tag.partition(":")[0], registry)
        except (ChampionError, deployments.DeploymentsError) as error:
            print(f"not recorded in the registry: {error}", file=sys.stderr)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One roll-out from this folder at a time."""
    descriptor = os.open(Path(__file__).parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise DeployError("another deploy.py is running from this folder: wait for it") from None
    finally:
        os.close(descriptor)


def deploy(target: Target, image: Image, arguments: argparse.Namespace) -> None:
    """Roll out, and record how it went."""
    verb = "rolling back to" if arguments.rollback else "rolling out"
    print(f"{verb} {image.name} {image.digest}", flush=True)
    try:
        model = target.roll_out(image, checker(not arguments.no_tests), arguments.timeout, arguments.rollback)
    except BaseException as error:
        interrupts.hold()
        record(target, image, {}, f"failed: {error or type(error).__name__}")
        show("Running after", target)
        raise
    record(target, image, model, DEPLOYED)
    show("Running after", target)
    print(f"{described(model)} answers")


def main() -> None:
    parser = argparse.ArgumentParser(
        "python k8s/deploy.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--type", required=True, choices=TARGETS, help="where to roll out")
    parser.add_argument("--image", metavar="REF", help="what to roll out: a tag (its digest is looked up) or a digest")
    parser.add_argument(
        "--overlay", type=Path, metavar="FOLDER", help="k8s: a Kustomize folder over k8s/, see k8s/overlays/"
    )
    parser.add_argument("--no-tests", action="store_true", help="skip the smoke tests; still wait until it is ready")
    parser.add_argument("--rollback", action="store_true", help="return to the previous image")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done")
    parser.add_argument(
        "--timeout", type=float, default=180.0, metavar="S", help="seconds to become ready (default 180)"
    )
    parser.add_argument(
        "--force-conflicts", action="store_true", help="k8s: take over fields that Helm, Flux or another tool keeps"
    )
    arguments = parser.parse_args()
    if arguments.type == "docker" and (arguments.overlay or arguments.force_conflicts):
        parser.error("--overlay and --force-conflicts are for --type k8s")
    if arguments.rollback and arguments.image:
        parser.error("--rollback chooses the image itself: leave out --image")
    interrupts.install()
    try:
        act(Docker() if arguments.type == "docker" else cluster(arguments), arguments)
    except Interrupted as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(128 + error.number)


def cluster(arguments: argparse.Namespace) -> Cluster:
    return Cluster(overlay=arguments.overlay, force=arguments.force_conflicts)


def act(target: Target, arguments: argparse.Namespace) -> None:
    """Rehearse or deploy, alone; what runs is looked at when nobody else changes it."""
    if arguments.dry_run:
        show("Running now", target)
        image = due(target, arguments)
        print(f"would roll out {image.name} {image.digest}:")
        print("\n".join(target.rehearse(image)))
        return
    with alone(), target.exclusive(arguments.timeout):
        show("Running before", target)
        deploy(target, due(target, arguments), arguments)


def due(target: Target, arguments: argparse.Namespace) -> Image:
    if arguments.rollback:
        return target.previous()
    image = target.resolve(arguments.image)
    demand_verdict(image)
    return image


def demand_verdict(image: Image) -> None:
    """ChampionError when the image is of the champion that is pinned here, and the gate did not let that through or
    the registry calls another one champion. Any other image asks for its own model's verdict as it starts."""
    with contextlib.suppress(NoChampionError):
        pin = pin_file.read(ROOT / pin_file.PIN_FILE)
        if image.labels.get(MODEL_LABEL) == pin.bento_tag:
            print(f"version {pin.mlflow_version}: {plain(judged.confirm(pin, ROOT))}", flush=True)


if __name__ == "__main__":
    run_command(main)
