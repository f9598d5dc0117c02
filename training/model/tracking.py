"""What the registry says of the champion, asked without importing MLflow: its SQLite file, or its REST API.

Only the standard library is imported: this module travels into the Bento.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.model import server
from training.model.pin import PIN_FILE, Champion, ChampionError
from training.model.server import TIMEOUT_S, RegistryUnreachableError, without_password

SQLITE = "sqlite:///"
ALIAS = "champion"
GATE_TAG = "gate"  # of a version: what the gate said last; anybody who may write there can say so too
JOURNAL_TAG = "unfinished_move"  # of the registered model in MLflow
BENTO_TAG = "bento_tag"  # of a version: the tag of its model in the BentoML store
SHA256_TAG = "model_sha256"  # of a version in MLflow: the identity of its model

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RegistryChampion:
    """What the registry says: the version behind the alias, and the hash and the gate's word that its tags give."""

    version: str
    model_sha256: str | None
    gate: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class RegisteredVersion:
    """A version in the registry, its run, and the tag of its model in the BentoML store."""

    version: str
    run_id: str
    bento_tag: str


def check_against_registry(pin: Champion, root: Path = Path()) -> None:
    """Raise ChampionError when the registry names another champion than `pin`.

    Asked is MLFLOW_TRACKING_URI, or else the registry the pin came from, in at most 2 s and without importing MLflow.
    A registry that cannot be reached is only logged: the pinned model is verified by its own checksums. One that asks
    for another login, or whose certificate is not trusted, is a RegistryRefusedError: somebody must mend that.
    `root` is the project folder, from which the path of an SQLite file counts.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or pin.tracking_uri
    try:
        named = registry_champion(pin.name, uri, root)
    except RegistryUnreachableError as error:
        log.warning("the pinned champion %s is served unchecked: %s", pin.bento_tag, error)
        return
    mend = "mend the pin with `python -m training.registry pull`"
    if named is None:
        raise ChampionError(
            f"{without_password(uri)} has no champion of {pin.name}, {PIN_FILE} pins {pin.bento_tag}: {mend}"
        )
    if named != RegistryChampion(pin.mlflow_version, pin.model_sha256):
        raise ChampionError(
            f"{PIN_FILE} pins version {pin.mlflow_version} ({pin.bento_tag}), but the champion of {pin.name} in "
            f"{without_password(uri)} is version {named.version}: {mend} if the gate let that version through; if not, "
            f"`python -m training.promote --version {named.version}` judges it"
        )


def registry_champion(name: str, uri: str, root: Path = Path()) -> RegistryChampion | None:
    """The version that carries the alias `champion`, or None; RegistryUnreachableError when `uri` cannot be asked."""
    if uri.startswith(SQLITE):
        rows = _query(uri, root, _CHAMPION_QUERY, (SHA256_TAG, GATE_TAG, name, ALIAS))
        return RegistryChampion(str(rows[0][0]), *rows[0][1:]) if rows else None
    answer = server.call(uri, "registered-models/alias", name=name, alias=ALIAS)
    if answer is None:
        return None
    tags = {tag["key"]: tag["value"] for tag in answer["model_version"].get("tags", [])}
    return RegistryChampion(str(answer["model_version"]["version"]), tags.get(SHA256_TAG), tags.get(GATE_TAG))


def has_unfinished_move(name: str, uri: str, root: Path = Path()) -> bool:
    """Whether a crash cut off a move of aliases (see aliases.py); RegistryUnreachableError as above."""
    if uri.startswith(SQLITE):
        return bool(_query(uri, root, _JOURNAL_QUERY, (name, JOURNAL_TAG)))
    return JOURNAL_TAG in registered_tags(name, uri)


def registered_tags(name: str, uri: str) -> dict[str, str]:
    """The tags of the registered model on an MLflow server; none when there is no such model."""
    answer = server.call(uri, "registered-models/get", name=name) or {"registered_model": {}}
    return {tag["key"]: tag["value"] for tag in answer.get("registered_model", {}).get("tags", [])}


def set_registered_tag(name: str, key: str, value: str, uri: str) -> None:
    """Set a tag of the registered model on an MLflow server; RegistryUnreachableError when that cannot be done."""
    data = json.dumps({"name": name, "key": key, "value": value}).encode()
    if server.call(uri, "registered-models/set-tag", data) is None:
        raise RegistryUnreachableError(
            f"{without_password(uri)} has no registered model {name}, or refuses the tag {key}"
        )


def registered_version(name: str, sha256: str, uri: str, root: Path = Path()) -> RegisteredVersion | None:
    """The version of the model with this hash, or None; RegistryUnreachableError as above."""
    if uri.startswith(SQLITE):
        rows = _query(uri, root, _VERSION_QUERY, (BENTO_TAG, name, SHA256_TAG, sha256))
        return RegisteredVersion(*map(str, rows[0])) if rows else None
    which = f"name = '{name}' AND tags.{SHA256_TAG} = '{sha256}'"
    for one in (server.call(uri, "model-versions/search", filter=which) or {}).get("model_versions", []):
        tags = {tag["key"]: tag["value"] for tag in one.get("tags", [])}
        return RegisteredVersion(str(one["version"]), str(one.get("run_id")), tags.get(BENTO_TAG, "-"))
    return None


_CHAMPION_QUERY = """
SELECT a.version, t.value, g.value FROM registered_model_aliases a
LEFT JOIN model_version_tags t ON t.name = a.name AND t.version = a.version AND t.key = ?
LEFT JOIN model_version_tags g ON g.name = a.name AND g.version = a.version AND g.key = ?
WHERE a.name = ? AND a.alias = ?
"""
_VERSION_QUERY = """
SELECT v.version, v.run_id, b.value FROM model_versions v
JOIN model_version_tags t ON t.name = v.name AND t.version = v.version
LEFT JOIN model_version_tags b ON b.name = v.name AND b.version = v.version AND b.key = ?
WHERE v.name = ? AND t.key = ? AND t.value = ?
"""
_JOURNAL_QUERY = "SELECT 1 FROM registered_model_tags WHERE name = ? AND key = ?"


def _query(uri: str, root: Path, sql: str, values: tuple[str, ...]) -> list[Any]:
    path = root / uri.removeprefix(SQLITE)
    if not path.is_file():
        raise RegistryUnreachableError(f"{path} does not exist")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=TIMEOUT_S)) as database:
            return database.execute(sql, values).fetchall()
    except sqlite3.Error as error:
        raise RegistryUnreachableError(f"{path} cannot be read: {error}") from None
