"""Who is champion, according to everyone who should know: registry, pin, BentoML store, running service."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from training.common.table import columns
from training.model import pin
from training.model.folder import ModelFolderError
from training.model.judged import NotJudgedError
from training.model.pin import ChampionError
from training.registry import bento_store, deployments, promotion
from training.registry.aliases import CHALLENGER, CHAMPION, PREVIOUS, pin_of
from training.registry.deployments import Deployment
from training.registry.mlflow_store import Registry, RegistryError, Version
from training.registry.packaging import is_recorded

SERVICE_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Report:
    """Rows of the table, the first being its head, what does not agree, and what should be known besides."""

    rows: list[tuple[str, ...]]
    problems: list[str]
    notes: list[str] = field(default_factory=list)

    def table(self) -> str:
        return columns(self.rows)


def collect(registry: Registry, deployed: Sequence[Deployment], url: str | None = None) -> Report:
    """Ask all of them; RegistryError when the service at `url` gives no answer to compare."""
    bentos = bento_store.bentos()
    rows: list[tuple[str, ...]] = [("alias", "version", "bento model", "in store", "bentos", "image digest", "running")]
    running = _service_model(url) if url else {}
    named = {alias: registry.by_alias(alias) for alias in (CHAMPION, PREVIOUS, CHALLENGER)}
    for alias, version in named.items():
        if version is None:
            rows.append((alias, "-", "-", "-", "-", "-", "-"))
            continue
        tag = version.bento_tag
        built = ", ".join(bentos.get(tag, ())) or "-"
        live = f"at {url}" if running.get("bento_tag") == tag else "-"
        rows.append((alias, version.number, tag, _held(tag), built, deployments.digest_of(tag, deployed) or "-", live))
    best = named[CHAMPION]
    if best is None:
        return Report(rows, [f"{registry.name} in {registry.where} has no champion yet: run `make run`"])
    served = _running(best, running, url) if url else []
    try:
        judgement = promotion.judgement(registry, best)
    except (NotJudgedError, RegistryError) as error:
        return Report(rows, [str(error), *served])
    notes = [f"champion: version {best.number} was {judgement}"] if judgement.forced else []
    return Report(rows, [*_pin(registry, best), *_store(best), *served], notes)


def last_of_each(deployed: Sequence[Deployment]) -> list[tuple[str, ...]]:
    """Rows of a table, the first being its head: the last deployment of every target; none: nothing was deployed."""
    last = {one.target: one for one in deployed}
    if not last:
        return []
    head = ("target", "deployed", "by", "version", "bento model", "digest", "result")
    return [head, *((o.target, o.time, o.who, o.version, o.model, o.digest[:19], o.result) for o in last.values())]


def _held(tag: str) -> str:
    if tag == "-":
        return "-"
    try:
        return "no" if bento_store.find(tag) is None else "yes"
    except ModelFolderError:
        return "changed"


def _pin(registry: Registry, version: Version) -> list[str]:
    expected = pin_of(registry, version)
    try:
        found = pin.read()
    except ChampionError as error:
        return [str(error)]
    differences = [
        f"{key} is {getattr(found, key)}, the registry says {value}"
        for key, value in vars(expected).items()
        if getattr(found, key) != value
    ]
    mend = "`python -m training.registry pull` fixes it"
    return [f"{pin.PIN_FILE}: {', '.join(differences)}: {mend}"] if differences else []


def _store(version: Version) -> list[str]:
    tag, mend = version.bento_tag, "`python -m training.registry pull` fixes it"
    try:
        version.check_origin()
    except RegistryError as error:
        return [str(error)]
    try:
        folder = bento_store.find(tag)
    except ModelFolderError as error:
        return [f"{error}: {mend}"]
    if folder is None:
        return [f"the BentoML store {bento_store.store_path()} has no {tag}: {mend}"]
    problems = []
    if folder.sha256 != version.sha256:
        problems.append(f"{tag} in the BentoML store is not the model of version {version.number}: {mend}")
    if not is_recorded(version):
        problems.append(f"{tag} in the BentoML store records another run or version than MLflow: {mend}")
    return problems


def _running(version: Version, running: dict[str, Any], url: str | None) -> list[str]:
    tag = running.get("bento_tag")
    if tag == version.bento_tag:
        return []
    return [f"{url} serves {tag}, the champion is {version.bento_tag}: restart or deploy it"]


def _service_model(url: str) -> dict[str, Any]:
    """What a running service says of its model; RegistryError when it says nothing."""
    address = f"{url.rstrip('/')}/health"
    try:
        with urllib.request.urlopen(address, timeout=SERVICE_TIMEOUT_S) as answer:
            model = json.load(answer)["model"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RegistryError(f"{address} does not say which model it serves ({error!r})") from None
    if not isinstance(model, dict):
        raise RegistryError(f"{address} does not say which model it serves (found {model!r})")
    return model
