"""Commands that are killed (SIGKILL) at a chosen moment: just before the n-th change they make to the outside world.

A fork server has imported everything beforehand, so that each death takes a second and not five.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
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
from training import bento_store, champion, gate, promote, register, registry
from training.mlflow_store import Registry

configure_mappers()
IMPORTED = (mlflow.pyfunc, mlflow.store, models, gate)  # what the commands import when they get to it

CHANGES: list[tuple[Any, str]] = [
    (bento_store, "put"),
    (champion, "replace_text"),
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
