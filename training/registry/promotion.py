"""How the pinned model came to be champion: the gate's verdict on it, and who was champion before.

The registry holds all of this; models/promotion.json repeats it beside the pin for a service that cannot ask the
registry, as in a Bento. It is written with the pin, and is about the model that the pin names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.common.files import write_text
from training.model.pin import PROMOTION_FILE
from training.registry.mlflow_store import Registry, Version

PROMOTED, BECAUSE, ROLLED_BACK = "promoted", "promoted_because", "rolled_back"  # tags of a version


def record(registry: Registry, champion: Version) -> dict[str, Any]:
    """Champion, verdict (None if the gate never saw it: somebody moved the alias by hand), former champions, newest
    first."""
    former = [one for one in registry.versions() if one.tags.get(PROMOTED) and one.number != champion.number]
    former.sort(key=lambda version: version.tags[PROMOTED], reverse=True)
    return {
        "schema": 1,
        "champion": _describe(champion),
        "verdict": registry.verdict(champion),
        "former": [_describe(version) for version in former],
    }


def _describe(version: Version) -> dict[str, Any]:
    names = {"version": version.number, "bento_tag": version.bento_tag, "model_sha256": version.sha256}
    keys = (PROMOTED, BECAUSE, ROLLED_BACK, "accuracy", "architecture", "data_hash", "git_commit")
    return names | {key: version.tags.get(key) or None for key in keys}


def write(registry: Registry, champion: Version, path: Path = PROMOTION_FILE) -> None:
    """Replace the file in one step."""
    write_text(path, json.dumps(record(registry, champion), indent=2) + "\n")
