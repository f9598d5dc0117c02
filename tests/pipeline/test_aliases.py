from __future__ import annotations

import contextlib
import json
import socket
import time
from pathlib import Path
from threading import Thread

import pytest

from tests.pipeline.acting import FAIR, GOOD, NAME, aliases, promoted, registered
from training.model import pin as pin_file
from training.model import tracking
from training.model.tracking import JOURNAL_TAG
from training.registry import bento_store
from training.registry.aliases import LOCK_EXPIRES_S, LOCK_TAG, Move, lock, pin, repair, settle
from training.registry.mlflow_store import Registry, RegistryError


def test_an_unfinished_move_is_rolled_forward_with_its_pin_and_tags(project: Path) -> None:
    promoted(project, **FAIR)
    version = registered(project, **GOOD)
    registry = Registry(NAME)
    move = Move(version.number, "1", None, {version.number: {"promoted_because": "a test"}})
    registry.set_tag(JOURNAL_TAG, json.dumps(vars(move)))
    assert tracking.has_unfinished_move(NAME, registry.uri)
    assert repair(registry)
    assert aliases() == {"champion": version.number, "previous": "1"}
    assert pin_file.read().mlflow_version == version.number
    assert registry.version(version.number).tags["promoted_because"] == "a test"
    assert not tracking.has_unfinished_move(NAME, registry.uri)
    assert not repair(registry)


def test_the_pin_is_left_alone_where_the_bento_store_lacks_the_model(project: Path) -> None:
    promoted(project, **FAIR)
    before = pin_file.read()
    version = registered(project, **GOOD)
    bento_store.delete(version.bento_tag)
    registry = Registry(NAME)
    registry.set_alias("champion", version.number)
    assert pin(registry) is None
    assert pin_file.read() == before


def test_the_lock_keeps_a_second_command_of_this_folder_out(project: Path) -> None:
    registered(project)
    registry = Registry(NAME)
    refused: list[RegistryError] = []

    def second() -> None:
        try:
            with lock(registry, wait_s=0.2):
                pass
        except RegistryError as error:
            refused.append(error)

    with lock(registry):
        thread = Thread(target=second)
        thread.start()
        thread.join()
    assert "another registry command holds" in str(refused[0])
    assert not [key for key in registry.tags() if key.startswith(LOCK_TAG)]


def mark(registry: Registry, place: str, age_s: float) -> str:
    key = f"{LOCK_TAG}test"
    registry.set_tag(key, json.dumps({"place": place, "since": time.time() - age_s}))
    return key


def test_the_lock_keeps_other_machines_out(project: Path) -> None:
    registered(project)
    registry = Registry(NAME)
    key = mark(registry, "elsewhere:/project", 1)
    with pytest.raises(RegistryError, match=r"elsewhere:/project is moving aliases"), lock(registry, wait_s=0.3):
        pass
    assert [tag for tag in registry.tags() if tag.startswith(LOCK_TAG)] == [key]


def test_the_lock_of_a_dead_machine_expires_and_that_of_a_dead_command_here_does_not_count(project: Path) -> None:
    registered(project)
    registry = Registry(NAME)
    mark(registry, "elsewhere:/project", LOCK_EXPIRES_S + 1)
    with lock(registry, wait_s=0.3):
        pass
    mark(registry, f"{socket.gethostname()}:{Path.cwd()}", 1)
    with lock(registry, wait_s=0.3):
        pass
    assert not [tag for tag in registry.tags() if tag.startswith(LOCK_TAG)]


def test_two_movers_never_hold_the_lock_together(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As from two machines: each with a file lock of its own, both with the same registry."""
    import training.registry.aliases as module

    registered(project)
    inside, most, turns = 0, 0, 0
    names = iter(range(100))

    def mover(place: str) -> None:
        nonlocal inside, most, turns
        registry = Registry(NAME)
        for _ in range(3):
            with module.lock(registry, wait_s=60):
                inside += 1
                most = max(most, inside)
                time.sleep(0.02)
                inside -= 1
                turns += 1

    monkeypatch.setattr(socket, "gethostname", lambda: f"machine-{next(names)}")
    monkeypatch.setattr(module, "local_lock", lambda wait_s: contextlib.nullcontext())
    threads = [Thread(target=mover, args=(f"machine-{number}",)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, turns) == (1, 6)


def test_settle_does_nothing_without_a_journal(project: Path) -> None:
    promoted(project, **FAIR)
    before = aliases()
    assert not settle(Registry(NAME))
    assert aliases() == before
