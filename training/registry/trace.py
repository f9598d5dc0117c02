"""From an answer of the service back to what made it: run, parameters, pictures, commit, and the way to redo it."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.registry.mlflow_store import LOCK_PATH, MANIFEST_PATH, PARAMS_PATH, Registry, RegistryError, Version

NAMES = ("run_id", "bento_tag", "version")  # in an answer's "model", the most telling first
RESTORED = "restored"


@dataclass(frozen=True)
class Trace:
    """All that is recorded about one version."""

    name: str
    version: Version
    params: dict[str, str]
    metrics: dict[str, float]
    files: list[str]

    def commands(self) -> list[str]:
        """Shell commands, for a clone of the project, that restore code and pictures and make the metrics again."""
        tags = self.version.tags
        commit, data, run = map(shlex.quote, (tags["git_commit"], tags["data_hash"], self.version.run_id))
        return [
            f"git checkout {commit}",
            f"mlflow artifacts download --run-id {run} --artifact-path lineage --dst-path {RESTORED}",
            f"cp {RESTORED}/{LOCK_PATH} dvc.lock",
            f"cp {RESTORED}/{PARAMS_PATH} params.yaml",
            "dvc pull prepare  # from the remote; without one, make them again: dvc repro prepare",
            f"echo {data}'  data/manifest.csv' | sha256sum --check",
            "dvc repro --force evaluate  # trains; writes model_performance.json",
        ]

    def text(self) -> str:
        tags = self.version.tags
        lines = [
            f"model       {self.name} version {self.version.number}, {self.version.bento_tag}",
            f"run         {self.version.run_id}",
            f"commit      {tags['git_commit']}{' and uncommitted changes' if tags['git_dirty'] == 'true' else ''}",
            f"pictures    {tags['data_hash']} = SHA-256 of the artifact {MANIFEST_PATH}",
            f"test split  {tags['test_hash']}",
            f"parameters  {tags['params_hash']}",
            *_block("params", self.params),
            *_block("metrics", {key: f"{value:.6g}" for key, value in self.metrics.items()}),
            "artifacts",
            *(f"  {path}" for path in self.files),
            "make it again",
            *(f"  {command}" for command in self.commands()),
        ]
        return "\n".join(lines)


def _block(title: str, values: Mapping[str, str]) -> list[str]:
    return [title, *(f"  {key} = {value}" for key, value in sorted(values.items()))]


def trace(registry: Registry, version: Version) -> Trace:
    """Read the run of `version`; RegistryError when MLflow has lost it."""
    version.check_origin()
    run, files = registry.run(version.run_id)
    return Trace(registry.name, version, dict(run.data.params), dict(run.data.metrics), files)


def answer_in(text: str) -> dict[str, Any] | None:
    """The "model" part of an answer given as JSON, a file of it, or - for stdin; None when `text` is no such thing."""
    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.lstrip()[:1] not in ("{", "[") and Path(text).is_file():
            text = Path(text).read_text()
        values = json.loads(text)
    except (OSError, ValueError):
        return None
    if isinstance(values, list) and values:
        values = values[0]  # of /predict_batch: one model answers them all
    if not isinstance(values, dict):
        return None
    model = values.get("model", values)
    return model if isinstance(model, dict) else None


def name_in(answer: Mapping[str, Any]) -> str:
    """What names the version in an answer; RegistryError when nothing does."""
    for name in NAMES:
        if answer.get(name):
            return str(answer[name])
    raise RegistryError(f"this answer names no model: none of {', '.join(NAMES)} is in it")


def confirm(answer: Mapping[str, Any], version: Version) -> None:
    """Raise RegistryError when an answer contradicts what the registry knows of the version it names."""
    known = {**version.tags, "run_id": version.run_id, "version": version.number}
    for key in ("version", "run_id", "bento_tag", "data_hash", "git_commit"):
        if key in answer and str(answer[key]) != known.get(key):
            raise RegistryError(
                f"the answer says {key} {answer[key]}, the registry says {known.get(key)}: it has been altered"
            )
