"""What tests of the registry do again and again, by the functions that the commands call."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.tiny import tiny_export
from training import params, promote
from training.promote import Outcome
from training.register import register
from training.registry.mlflow_store import Registry, Version

NAME = "cats-vs-dogs"
GOOD: dict[str, Any] = {"skill": 1.0}
FAIR: dict[str, Any] = {"skill": 0.3, "seed": 1}  # surely a higher log-loss than GOOD, and fewer right
POOR: dict[str, Any] = {"skill": 0.15, "seed": 1}


def registered(root: Path, **how: Any) -> Version:
    """Export a tiny model in the project (the current folder) and register it."""
    return register(tiny_export(root, **how), params.load().register_)


def promoted(root: Path, force: str | None = None, **how: Any) -> Outcome:
    """Export, register, and send it through the gate."""
    folder = tiny_export(root, **how)
    settings = params.load()
    register(folder, settings.register_)
    return promote.promote(folder, settings, force)


def restore(kept: Path, target: Path) -> None:
    """Make the folder `target` what `kept` is. A database is overwritten in place: MLflow may hold it open."""
    for old in target.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
        elif old.suffix != ".db":
            old.unlink()
    shutil.copytree(kept, target, dirs_exist_ok=True)


def aliases() -> dict[str, str]:
    return Registry(NAME).aliases()
