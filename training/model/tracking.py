"""What the registry says of the champion, asked without importing MLflow: its SQLite file, or its REST API.

Only the standard library is imported: this module travels into the Bento.
"""

from __future__ import annotations

import base64
import http.client
import json
import logging
import os
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.model.pin import PIN_FILE, Champion, ChampionError

SQLITE = "sqlite:///"
ALIAS = "champion"
JOURNAL_TAG = "unfinished_move"  # of the registered model in MLflow
SHA256_TAG = "model_sha256"  # of a version in MLflow: the identity of its model
TIMEOUT_S = 2.0

log = logging.getLogger(__name__)


class RegistryUnreachableError(ChampionError):
    """The registry cannot be asked."""


@dataclass(frozen=True)
class RegistryChampion:
    """What the registry says: the version behind the alias and the hash that its tags give."""

    version: str
    model_sha256: str | None


def check_against_registry(pin: Champion, root: Path = Path()) -> None:
    """Raise ChampionError when the registry names another champion than `pin`.

    Asked is MLFLOW_TRACKING_URI, or else the registry the pin came from, in at most 2 s and without importing MLflow.
    A registry that cannot be reached is only logged: the pinned model is verified by its own checksums.
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
            f"{without_password(uri)} is version {named.version}: {mend}"
        )


def registry_champion(name: str, uri: str, root: Path = Path()) -> RegistryChampion | None:
    """The version that carries the alias `champion`, or None; RegistryUnreachableError when `uri` cannot be asked."""
    if uri.startswith(SQLITE):
        rows = _query(uri, root, _CHAMPION_QUERY, (SHA256_TAG, name, ALIAS))
        return RegistryChampion(str(rows[0][0]), rows[0][1]) if rows else None
    answer = _call(uri, "registered-models/alias", name=name, alias=ALIAS)
    if answer is None:
        return None
    tags = {tag["key"]: tag["value"] for tag in answer["model_version"].get("tags", [])}
    return RegistryChampion(str(answer["model_version"]["version"]), tags.get(SHA256_TAG))


def has_unfinished_move(name: str, uri: str, root: Path = Path()) -> bool:
    """Whether a crash cut off a move of aliases (see aliases.py); RegistryUnreachableError as above."""
    if uri.startswith(SQLITE):
        return bool(_query(uri, root, _JOURNAL_QUERY, (name, JOURNAL_TAG)))
    return JOURNAL_TAG in registered_tags(name, uri)


def registered_tags(name: str, uri: str) -> dict[str, str]:
    """The tags of the registered model on an MLflow server; none when there is no such model."""
    answer = _call(uri, "registered-models/get", name=name) or {"registered_model": {}}
    return {tag["key"]: tag["value"] for tag in answer.get("registered_model", {}).get("tags", [])}


def set_registered_tag(name: str, key: str, value: str, uri: str) -> None:
    """Set a tag of the registered model on an MLflow server; RegistryUnreachableError when that cannot be done."""
    data = json.dumps({"name": name, "key": key, "value": value}).encode()
    if _call(uri, "registered-models/set-tag", data) is None:
        raise RegistryUnreachableError(
            f"{without_password(uri)} has no registered model {name}, or refuses the tag {key}"
        )


def registered_version(name: str, sha256: str, uri: str, root: Path = Path()) -> str | None:
    """The version of the model with this hash, or None; RegistryUnreachableError as above."""
    if uri.startswith(SQLITE):
        rows = _query(uri, root, _VERSION_QUERY, (name, SHA256_TAG, sha256))
        return str(rows[0][0]) if rows else None
    answer = _call(uri, "model-versions/search", filter=f"name = '{name}' AND tags.{SHA256_TAG} = '{sha256}'") or {}
    return next((str(version["version"]) for version in answer.get("model_versions", [])), None)


def without_password(uri: str) -> str:
    """`uri` without user name and password: fit for a file or a message."""
    try:
        parts = urllib.parse.urlsplit(uri)
    except ValueError:
        raise ChampionError(f"MLFLOW_TRACKING_URI is no address: {uri.rpartition('@')[2]}") from None
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.username else uri


_CHAMPION_QUERY = """
SELECT a.version, t.value FROM registered_model_aliases a
LEFT JOIN model_version_tags t ON t.name = a.name AND t.version = a.version AND t.key = ?
WHERE a.name = ? AND a.alias = ?
"""
_VERSION_QUERY = "SELECT version FROM model_version_tags WHERE name = ? AND key = ? AND value = ?"
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


def _call(uri: str, method: str, data: bytes | None = None, **query: str) -> dict[str, Any] | None:
    """One call of MLflow's REST API, a POST of the JSON `data` if there is any; None when MLflow says that what it is
    about does not exist."""
    where = without_password(uri)
    if not uri.startswith(("http://", "https://")):
        raise RegistryUnreachableError(f"a registry at {where} cannot be asked without MLflow")
    url = f"{where.rstrip('/')}/api/2.0/mlflow/{method}?{urllib.parse.urlencode(query)}"
    request = urllib.request.Request(url, data, _credentials(uri) | {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            found = json.load(answer)
    except urllib.error.HTTPError as error:
        if _says_missing(error):
            return None
        raise RegistryUnreachableError(f"{where} answers {error.code} {error.reason}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise RegistryUnreachableError(f"{where} cannot be asked: {error!r}") from None
    if not isinstance(found, dict):
        raise RegistryUnreachableError(f"{where} does not answer as MLflow does")
    return found


def _says_missing(error: urllib.error.HTTPError) -> bool:
    """Whether MLflow itself (not some other server's 404) says that the model or its alias does not exist."""
    try:
        code = json.load(error).get("error_code")
    except (OSError, ValueError, AttributeError):
        return False
    return code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def _credentials(uri: str) -> dict[str, str]:
    """MLflow's own ways to log in: a token, or user and password, from the environment or the address."""
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if token:
        return {"Authorization": f"Bearer {token}"}
    parts = urllib.parse.urlsplit(uri)
    user = parts.username or os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = parts.password or os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()} if user else {}
