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
from training.registry import aliases as module
from training.registry import bento_store
from training.registry.aliases import LOCK_TAG, OWNER_FILE, Move, lock, pin, repair, settle
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


def mark(registry: Registry, name: str = "test") -> str:
    """The lock of another machine with the same host name and the same folder."""
    key = f"{LOCK_TAG}{name}"
    registry.set_tag(key, json.dumps({"place": f"{socket.gethostname()}:{Path.cwd()}", "beat": 0}))
    return key


def test_the_lock_keeps_other_machines_out(project: Path) -> None:
    """Also one that looks like this one: two containers of one image."""
    registered(project)
    registry = Registry(NAME)
    key = mark(registry)
    with pytest.raises(RegistryError, match=r"/project is moving aliases"), lock(registry, wait_s=0.3):
        pass
    assert [tag for tag in registry.tags() if tag.startswith(LOCK_TAG)] == [key]


def test_the_lock_of_the_dead_does_not_count(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a machine that gives no sign of life, and of the command that was killed here."""
    registered(project)
    registry = Registry(NAME)
    with lock(registry):
        pass
    mark(registry, OWNER_FILE.read_text())
    with lock(registry, wait_s=0.3):
        pass
    mark(registry)
    monkeypatch.setattr(module, "LOCK_EXPIRES_S", 0.05)
    with lock(registry, wait_s=5):
        pass
    assert not [tag for tag in registry.tags() if tag.startswith(LOCK_TAG)]


def test_a_holder_gives_signs_of_life(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it holds the lock, another machine does not take it for dead."""
    registered(project)
    registry = Registry(NAME)
    beats: list[int] = []
    monkeypatch.setattr(module, "LOCK_BEAT_S", 0.01)
    with lock(registry):
        while len(set(beats)) < 3:
            beats += [json.loads(value)["beat"] for key, value in registry.tags().items() if key.startswith(LOCK_TAG)]
    assert sorted(beats) == beats
    assert not [tag for tag in registry.tags() if tag.startswith(LOCK_TAG)]


def test_two_movers_never_hold_the_lock_together(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As from two machines: each with a file lock of its own, both with the same registry."""
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
    monkeypatch.setattr(module, "_left_behind", lambda: "")
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
