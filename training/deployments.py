"""What was deployed: one JSON object a line in models/deployments.jsonl, appended by k8s/deploy.py.

{"time": "2026-01-01T00:00:00+00:00", "target": "k8s/default", "bento": "classifier:abc",
 "model": "cats-vs-dogs:0123456789abcdef", "image": "registry/classifier:abc", "digest": "sha256:..."}
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

DEPLOYMENTS_FILE = Path("models/deployments.jsonl")
IN_USE = 2  # deployments of a target that may be live: the last one, and the one a rollback returns to


class DeploymentsError(RuntimeError):
    """The record of deployments cannot be read."""


@dataclass(frozen=True)
class Deployment:
    """One roll-out. `model` is the Bento model's tag, `digest` the image's."""

    time: str
    target: str
    bento: str
    model: str
    image: str
    digest: str


def read(path: Path = DEPLOYMENTS_FILE) -> list[Deployment]:
    """All deployments, the oldest first; DeploymentsError names a line that is not one."""
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            values = json.loads(line)
            found.append(Deployment(**{key: str(values[key]) for key in Deployment.__dataclass_fields__}))
        except (ValueError, KeyError, TypeError) as error:
            raise DeploymentsError(
                f"{path}, line {number} is not a deployment ({error!r}): correct or remove it"
            ) from None
    return found


def tags_in_use(path: Path = DEPLOYMENTS_FILE) -> set[str]:
    """Tags of the Bento models that are live somewhere, or that a rollback of a deployment would need."""
    by_target: dict[str, list[str]] = {}
    for deployment in read(path):
        by_target.setdefault(deployment.target, []).append(deployment.model)
    return {tag for tags in by_target.values() for tag in tags[-IN_USE:]}


def digest_of(tag: str, path: Path = DEPLOYMENTS_FILE) -> str:
    """Digest of the image deployed last with the Bento model `tag`; empty when none was."""
    return next((one.digest for one in reversed(read(path)) if one.model == tag), "")
