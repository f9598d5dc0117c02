"""Everything is applied for trial before anything is: the API server checks schemas, admission and field owners."""

from __future__ import annotations

import re
from collections.abc import Iterator

from k8s.manifests import Object
from k8s.rollout.kubectl import MANAGER, Kubectl
from k8s.target import DeployError

TRIAL = "--dry-run=server"
FORCE = "--force-conflicts"
CONFLICT = re.compile(r'conflicts? with "([^"]+)"(?: with subresource "[^"]+")?(?: using [\w./]+)?(?: at [^:]+)?:')
BY_HAND = {MANAGER, "kubectl", "before-first-apply"}


def by_hand(manager: str) -> bool:
    """Whether a field's owner was a single command, as `kubectl set image`, and will not write it again by itself."""
    return manager in BY_HAND or manager.startswith("kubectl-")


def rehearse(kubectl: Kubectl, objects: list[Object], force: bool) -> list[str]:
    """What applying would do, a line for each object. DeployError when it is refused.

    Fields that a command set by hand are taken over, and it is said whose they were. A field that another tool keeps
    (Helm, Flux, Argo CD, an autoscaler) is taken over with `force` alone: the two would set it in turns.
    """
    try:
        return kubectl.apply(objects, TRIAL).splitlines()
    except DeployError as error:
        owners = conflicts(str(error))
    foreign = sorted(owner for owner in owners if not by_hand(owner))
    if foreign and not force:
        fields = ", ".join(f"{owner}: {' '.join(owners[owner])}" for owner in foreign)
        raise DeployError(
            f"another tool keeps fields that would change ({fields}): change them there, leave them out of the "
            f"manifests, or take them over with {FORCE}"
        )
    taken = [f"taking over from {owner}: {' '.join(fields)}" for owner, fields in sorted(owners.items()) if fields]
    return [*kubectl.apply(objects, FORCE, TRIAL).splitlines(), *taken]


def conflicts(said: str) -> dict[str, list[str]]:
    """Fields by their owner, where it is another and has another value, from what kubectl says."""
    found: dict[str, list[str]] = {}
    for owner, fields in parsed(said):
        found.setdefault(owner, []).extend(fields)
    return found


def parsed(text: str) -> Iterator[tuple[str, list[str]]]:
    """(owner, fields) of each conflict in what kubectl says."""
    marks = [*CONFLICT.finditer(text)]
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    for mark, end in zip(marks, ends, strict=False):  # without a mark, one end is left
        said = text[mark.end() : end].partition("Please review")[0]
        yield mark[1], re.findall(r"\.[a-z]\w*\S*", said.replace(";", " "))
