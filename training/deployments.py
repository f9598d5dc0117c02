"""What was deployed: one JSON object a line in models/deployments.jsonl, appended by k8s/deploy.py.

{"time": "2026-01-01T00:00:00+00:00", "target": "k8s/default", "bento": "classifier:abc",
 "model": "cats-vs-dogs:0123456789abcdef", "image": "registry/classifier", "digest": "sha256:...",
 "version": "3", "who": "ada@laptop", "result": "deployed"}
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

DEPLOYMENTS_FILE = Path("models/deployments.jsonl")
IN_USE = 2  # deployments of a target that may be live: the last one, and the one a rollback returns to
DEPLOYED = "deployed"  # result of a roll-out that stands; any other result says why it does not


class DeploymentsError(RuntimeError):
    """The record of deployments cannot be read."""


@dataclass(frozen=True)
class Deployment:
    """One roll-out. `model` is the Bento model's tag, `version` the one in MLflow, `digest` the image's.

    The fields with a default are missing in records of former releases, which told of standing roll-outs only.
    """

    time: str
    target: str
    bento: str
    model: str
    image: str
    digest: str
    version: str = ""
    who: str = ""
    result: str = DEPLOYED


def read(path: Path = DEPLOYMENTS_FILE) -> list[Deployment]:
    """All deployments, the oldest first; DeploymentsError names a line that is not one."""
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            values = json.loads(line)
            found.append(Deployment(**{name: str(values[name]) for name in _names(values)}))
        except (ValueError, KeyError, TypeError) as error:
            raise DeploymentsError(
                f"{path}, line {number} is not a deployment ({error!r}): correct or remove it"
            ) from None
    return found


def _names(values: dict[str, object]) -> list[str]:
    """The fields a line must have, and those it has of the others."""
    fields = dataclasses.fields(Deployment)
    return [one.name for one in fields if one.default is dataclasses.MISSING or one.name in values]


def append(deployment: Deployment, path: Path = DEPLOYMENTS_FILE) -> None:
    """Add one line, in one write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(dataclasses.asdict(deployment)) + "\n")


def standing(path: Path = DEPLOYMENTS_FILE) -> list[Deployment]:
    """The deployments that were not rolled back at once, the oldest first."""
    return [deployment for deployment in read(path) if deployment.result == DEPLOYED]


def tags_in_use(path: Path = DEPLOYMENTS_FILE) -> set[str]:
    """Tags of the Bento models that are live somewhere, or that a rollback of a deployment would need."""
    by_target: dict[str, list[str]] = {}
    for deployment in standing(path):
        by_target.setdefault(deployment.target, []).append(deployment.model)
    return {tag for tags in by_target.values() for tag in tags[-IN_USE:]}


def digest_of(tag: str, path: Path = DEPLOYMENTS_FILE) -> str:
    """Digest of the image deployed last with the Bento model `tag`; empty when none was."""
    return next((one.digest for one in reversed(standing(path)) if one.model == tag), "")
