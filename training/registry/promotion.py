"""How the pinned model came to be champion: the gate's verdict on it, and who was champion before.

The registry holds all of this; models/promotion.json repeats it beside the pin for a service that cannot ask the
registry, as in a Bento. It is written with the pin, and is about the model that the pin names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.common.files import write_text
from training.model import judged
from training.model.judged import TEST_HASH_TAG, Judgement, NotJudgedError, Subject
from training.model.pin import PROMOTION_FILE
from training.registry.mlflow_store import Registry, RegistryError, Version

PROMOTED, BECAUSE, ROLLED_BACK = "promoted", "promoted_because", "rolled_back"  # tags of a version
FORCED_TAG = "gate_forced"  # why the gate was overruled


def judgement(registry: Registry, version: Version) -> Judgement:
    """What the gate said of `version`, by its own record in the registry; NotJudgedError unless it let it through, and
    nobody has rolled it back since; RegistryError when the version was made by hand."""
    version.check_origin()
    if version.tags.get(ROLLED_BACK):
        raise subject(version).refusal(f"was moved by hand: it was rolled back {version.tags[ROLLED_BACK]}")
    return judged.demand(registry.verdict(version), subject(version))


def subject(version: Version) -> Subject:
    """What a verdict on `version` must be about. One from before TEST_HASH_TAG was given is by the test pictures of
    its evaluation."""
    test_hash = version.tags.get(TEST_HASH_TAG) or version.tags.get("test_hash")
    return Subject(version.name, version.number, version.sha256, test_hash)


def rightful(registry: Registry, named: Version | None) -> Version | None:
    """`named`, who carries the alias `champion`, if the gate let it through. If somebody moved the alias to one that it
    did not let through, the last that became champion by the gate, or None."""
    if named is None or _let_through(registry, named):
        return named
    stand = (version for version in _former(registry, named) if not version.tags.get(ROLLED_BACK))
    return next((version for version in stand if _let_through(registry, version)), None)


def _former(registry: Registry, champion: Version) -> list[Version]:
    """Who else has become champion, the latest first."""
    former = [one for one in registry.versions() if one.tags.get(PROMOTED) and one.number != champion.number]
    return sorted(former, key=lambda version: version.tags[PROMOTED], reverse=True)


def _let_through(registry: Registry, version: Version) -> bool:
    try:
        judgement(registry, version)
    except (NotJudgedError, RegistryError):
        return False
    return True


def record(registry: Registry, champion: Version) -> dict[str, Any]:
    """Champion, verdict (None if the gate never saw it: somebody moved the alias by hand), former champions, newest
    first."""
    return {
        "schema": 1,
        "champion": _describe(champion),
        "verdict": registry.verdict(champion),
        "former": [_describe(version) for version in _former(registry, champion)],
    }


def _describe(version: Version) -> dict[str, Any]:
    names = {"version": version.number, "bento_tag": version.bento_tag, "model_sha256": version.sha256}
    keys = (PROMOTED, BECAUSE, ROLLED_BACK, "accuracy", "architecture", "data_hash", "git_commit", TEST_HASH_TAG)
    return names | {key: version.tags.get(key) or None for key in keys}


def write(registry: Registry, champion: Version, path: Path = PROMOTION_FILE) -> None:
    """Replace the file in one step."""
    write_text(path, json.dumps(record(registry, champion), indent=2) + "\n")
