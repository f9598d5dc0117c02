"""Commands that are killed (SIGKILL) at a chosen moment: just before the n-th change they make to the outside world.

A fork server has imported everything beforehand, so that each death takes a second and not five.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store
import pytest
from bentoml import models
from mlflow import MlflowClient
from sqlalchemy.orm import configure_mappers

from tests.killing import ROOT
from tests.pipeline.acting import restore
from training import promote, register
from training.gate import checks
from training.model import pin, tracking
from training.registry import __main__ as registry
from training.registry import bento_store
from training.registry.mlflow_store import Registry

NEVER, LEAST = 10**9, 9  # changes; changes that a move of aliases makes at least

configure_mappers()
IMPORTED = (mlflow.pyfunc, mlflow.store, models, checks)  # what the commands import when they get to it

CHANGES: list[tuple[Any, str]] = [
    (bento_store, "put"),
    (Path, "rename"),
    (Path, "replace"),
    (Registry, "set_tag"),
    (Registry, "delete_tag"),
    (Registry, "set_alias"),
    (Registry, "delete_alias"),
    (Registry, "tag_version"),
    (MlflowClient, "create_experiment"),
    (MlflowClient, "create_run"),
    (MlflowClient, "log_batch"),
    (MlflowClient, "log_artifact"),
    (MlflowClient, "log_artifacts"),
    (MlflowClient, "log_dict"),
    (MlflowClient, "log_text"),
    (MlflowClient, "set_terminated"),
    (MlflowClient, "create_registered_model"),
    (MlflowClient, "create_model_version"),
]
MAINS: dict[str, Callable[[], None]] = {
    "register": register.main,
    "promote": promote.main,
    "registry": registry.main,
}


def dies(command: str, *words: str, before: int) -> bool:
    """Run a command here and now, to be killed before its `before`-th change; False if it ended before that."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        forkserver.ensure_running()
    process = context.Process(target=_run, args=(command, words, before, dict(os.environ), str(Path.cwd())))
    process.start()
    process.join(120)
    assert process.exitcode in (0, -signal.SIGKILL), f"{command} ended with {process.exitcode}"
    return process.exitcode != 0


def _run(command: str, words: tuple[str, ...], before: int, environment: dict[str, str], folder: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [command, *words]
    left = before

    def mortal(change: Callable[..., Any]) -> Callable[..., Any]:
        def changing(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*arguments, **options)

        return changing

    for owner, name in CHANGES:
        setattr(owner, name, mortal(getattr(owner, name)))
    MAINS[command]()


@dataclass(frozen=True)
class State:
    """Aliases and unfinished business in the SQLite registry, read past MLflow: its pool may hold an older file."""

    aliases: dict[str, str]
    marks: list[str]


def state() -> State:
    with closing(sqlite3.connect("mlflow.db")) as database:
        named = database.execute("SELECT alias, version FROM registered_model_aliases").fetchall()
        marks = database.execute("SELECT key FROM registered_model_tags").fetchall()
    return State({alias: str(version) for alias, version in named}, [key for (key,) in marks])


def deaths_from_here(command: str, *words: str, again: tuple[str, ...] = ()) -> Iterator[int]:
    """Kill a command before its first change, its second, and so on, each time from the state of now.

    After each death a reader must find exactly one whole champion; then the command (with the words `again` if given)
    runs to its end, and the caller looks at what that left.
    """
    home = Path(os.environ["BENTOML_HOME"])
    with tempfile.TemporaryDirectory() as kept:
        shutil.copytree(Path.cwd(), Path(kept, "project"))
        shutil.copytree(home, Path(kept, "bentoml"))
        for number in itertools.count(1):
            restore(Path(kept, "project"), Path.cwd())
            restore(Path(kept, "bentoml"), home)
            if not dies(command, *words, before=number):
                break
            found = tracking.registry_champion("cats-vs-dogs", "sqlite:///mlflow.db")
            assert found is not None
            assert bento_store.is_whole(bento_store.tag_of("cats-vs-dogs", str(found.model_sha256)))
            assert bento_store.is_whole(pin.read().bento_tag)
            assert not dies(command, *(again or words), before=NEVER)
            yield number
    assert number >= LEAST
