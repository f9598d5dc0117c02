"""What was deployed: one JSON object a line in models/deployments.jsonl, appended by k8s/deploy.py; where the registry
is an MLflow server, the newest of each target are in a tag of the registered model too, for all machines to see.

{"time": "2026-01-01T00:00:00+00:00", "target": "k8s/default", "bento": "classifier:abc",
 "model": "cats-vs-dogs:0123456789abcdef", "image": "registry/classifier", "digest": "sha256:...",
 "version": "3", "who": "ada@laptop", "result": "deployed"}
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from training.common.errors import ExpectedError
from training.model import tracking

DEPLOYMENTS_FILE = Path("models/deployments.jsonl")
IN_USE = 2  # deployments of a target that may be live: the last one, and the one a rollback returns to
SHARED = 5  # newest deployments of a target that the registry keeps
SHARED_TAG = "deployments."  # and the target: name of the tag
LONGEST_TAG = 5000  # characters that MLflow's databases take
LONGEST_RESULT = 300  # characters of a result in it
DEPLOYED = "deployed"  # result of a roll-out that stands; any other result says why it does not


class DeploymentsError(ExpectedError):
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
            found.append(_made(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise DeploymentsError(
                f"{path}, line {number} is not a deployment ({error!r}): correct or remove it"
            ) from None
    return found


def _made(values: dict[str, object]) -> Deployment:
    return Deployment(**{name: str(values[name]) for name in _names(values)})


def _names(values: dict[str, object]) -> list[str]:
    """The fields a line must have, and those it has of the others."""
    fields = dataclasses.fields(Deployment)
    return [one.name for one in fields if one.default is dataclasses.MISSING or one.name in values]


def append(deployment: Deployment, path: Path = DEPLOYMENTS_FILE) -> None:
    """Add one line, in one write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(dataclasses.asdict(deployment)) + "\n")


def share(deployment: Deployment, name: str, uri: str) -> None:
    """Note it at the registered model `name` on the MLflow server `uri`; RegistryUnreachableError when that fails."""
    key = SHARED_TAG + re.sub(r"[^\w.\-/ :]", "_", deployment.target)  # what MLflow takes
    former = shared({key: tracking.registered_tags(name, uri).get(key, "[]")})
    short = dataclasses.replace(deployment, result=deployment.result[:LONGEST_RESULT])
    newest = [dataclasses.asdict(one) for one in [*former, short][-SHARED:]]
    while len(text := json.dumps(newest)) > LONGEST_TAG and len(newest) > 1:
        del newest[0]
    tracking.set_registered_tag(name, key, text, uri)


def shared(tags: Mapping[str, str]) -> list[Deployment]:
    """The deployments in the tags of a registered model; DeploymentsError names a tag that tells of none."""
    found = []
    for key, value in tags.items():
        if key.startswith(SHARED_TAG):
            try:
                found += [_made(one) for one in json.loads(value)]
            except (ValueError, KeyError, TypeError) as error:
                raise DeploymentsError(f"the registry's tag {key} tells of no deployments ({error!r})") from None
    return found


def known(tags: Mapping[str, str], path: Path = DEPLOYMENTS_FILE) -> list[Deployment]:
    """Those of this machine and those in the registry's `tags`, each once, the oldest first."""
    own = read(path)
    short = {dataclasses.replace(one, result=one.result[:LONGEST_RESULT]) for one in own}
    return sorted([*own, *(one for one in shared(tags) if one not in short)], key=lambda one: one.time)


def tags_in_use(deployed: Iterable[Deployment]) -> set[str]:
    """Tags of the Bento models that are live somewhere, or that a rollback of a deployment would need."""
    by_target: dict[str, list[str]] = {}
    for deployment in deployed:
        if deployment.result == DEPLOYED:
            by_target.setdefault(deployment.target, []).append(deployment.model)
    return {tag for tags in by_target.values() for tag in tags[-IN_USE:]}


def digest_of(tag: str, deployed: Iterable[Deployment]) -> str:
    """Digest of the image deployed last with the Bento model `tag`; empty when none was."""
    digests = [one.digest for one in deployed if one.model == tag and one.result == DEPLOYED]
    return digests[-1] if digests else ""
