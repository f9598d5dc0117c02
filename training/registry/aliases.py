"""Moves of the aliases `champion`, `previous`, `challenger`: one at a time, and whole even when the power fails.

A move is first written down in the registry (the journal, a tag of the registered model), then carried out, then
crossed out. Each of its steps sets a value and may be repeated, so whoever comes next finishes what a crash cut off:
`settle` rolls it forward. The alias `champion` itself moves by one call, a single transaction in MLflow: a reader sees
the former champion or the new one, never none and never two.
"""

from __future__ import annotations

import itertools
import json
import random
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event, Thread

from filelock import FileLock, Timeout

from training.model import pin as pin_file
from training.model import tracking
from training.model.pin import Champion
from training.model.tracking import JOURNAL_TAG
from training.registry import bento_store, promotion
from training.registry.mlflow_store import Registry, RegistryError, Version

CHAMPION, PREVIOUS, CHALLENGER = tracking.ALIAS, "previous", "challenger"
LOCK_TAG = "lock."
LOCK_FILE = Path(".cache/registry.lock")
OWNER_FILE = Path(".cache/registry.owner")  # of the lock that was taken last from this folder; beside LOCK_FILE
LOCK_BEAT_S = 4.0
LOCK_EXPIRES_S = 20.0  # without a beat: whoever holds the lock is dead
LOCK_WAIT_S = 40.0


@dataclass(frozen=True)
class Move:
    """Where the aliases shall point (None: nowhere), and the tags that tell each version why."""

    champion: str
    previous: str | None
    challenger: str | None
    tags: dict[str, dict[str, str]] = field(default_factory=dict)


def carry_out(registry: Registry, move: Move) -> None:
    """Write the journal, move, cross out. The caller holds the lock."""
    registry.set_tag(JOURNAL_TAG, json.dumps(asdict(move)))
    settle(registry)


def settle(registry: Registry) -> bool:
    """Finish a move that was begun; whether there was one. The caller holds the lock."""
    journal = registry.tags().get(JOURNAL_TAG)
    if journal is None:
        return False
    move = Move(**json.loads(journal))
    point(registry, PREVIOUS, move.previous)
    point(registry, CHAMPION, move.champion)
    point(registry, CHALLENGER, move.challenger)
    for number, tags in move.tags.items():
        registry.tag_version(number, tags)
    pin(registry)
    registry.delete_tag(JOURNAL_TAG)
    return True


def point(registry: Registry, alias: str, number: str | None) -> None:
    """Set or remove one alias."""
    if number is None:
        registry.delete_alias(alias)
    else:
        registry.set_alias(alias, number)


def repair(registry: Registry) -> bool:
    """Finish the move that a crash cut off, if there is one; every command of the registry calls this first."""
    if JOURNAL_TAG not in registry.tags():
        return False
    with lock(registry):
        return settle(registry)


def pin(registry: Registry) -> Champion | None:
    """Write models/champion.json, and promotion.json beside it, as the registry says, if the BentoML store here has
    that model."""
    version = registry.by_alias(CHAMPION)
    if version is None or not bento_store.is_whole(version.bento_tag):
        return None
    made = pin_of(registry, version)
    pin_file.write(made)
    promotion.write(registry, version)
    return made


def pin_of(registry: Registry, version: Version) -> Champion:
    """The pin that names `version`."""
    return Champion(
        name=registry.name,
        bento_tag=version.bento_tag,
        mlflow_version=version.number,
        run_id=version.run_id,
        model_sha256=version.sha256,
        tracking_uri=registry.where,
    )


@contextmanager
def local_lock(wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """One command of this project folder at a time; the system frees it when a process dies."""
    LOCK_FILE.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(LOCK_FILE, timeout=wait_s):
            yield
    except Timeout:
        raise RegistryError(
            f"another registry command holds {LOCK_FILE}: wait for it to end, then run this again"
        ) from None


@contextmanager
def lock(registry: Registry, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """One mover at a time, on this machine and on all that use the same registry.

    MLflow has no lock, but its tags are transactions. Each contender writes a tag of its own, then reads all of them:
    of two, the later writer is bound to see the other's, and withdraws. RegistryError after `wait_s` seconds.
    """
    owner = uuid.uuid4().hex
    key = f"{LOCK_TAG}{owner}"
    deadline = time.monotonic() + wait_s
    with local_lock(wait_s):
        others = _Others(key, LOCK_TAG + _left_behind())
        OWNER_FILE.write_text(owner)
        try:
            while True:
                registry.set_tag(key, _mark(0))
                holder = others.alive(registry)
                if holder is None:
                    break
                registry.delete_tag(key)
                if time.monotonic() > deadline:
                    raise RegistryError(
                        f"{holder} is moving aliases of {registry.name}: wait for it, then run this again"
                    )
                time.sleep(random.uniform(0.1, 1.0))
            with _beating(registry, key):
                yield
        finally:
            registry.delete_tag(key)


def _left_behind() -> str:
    """The owner of the last lock that was taken from this folder."""
    return OWNER_FILE.read_text() if OWNER_FILE.is_file() else ""


def _mark(beat: int) -> str:
    return json.dumps({"place": f"{socket.gethostname()}:{Path.cwd()}", "beat": beat})


@contextmanager
def _beating(registry: Registry, key: str) -> Iterator[None]:
    """Change our mark every few seconds, as a sign of life; a beat that fails is left out."""
    over = Event()

    def beat() -> None:
        for number in itertools.count(1):
            if over.wait(LOCK_BEAT_S):
                return
            with suppress(RegistryError):
                registry.set_tag(key, _mark(number))

    thread = Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class _Others:
    """The marks of other contenders, and since when each has not changed: by our own clock, theirs may be wrong."""

    def __init__(self, own: str, dead: str) -> None:
        self.own, self.dead = own, dead
        self.seen: dict[str, tuple[str, float]] = {}

    def alive(self, registry: Registry) -> str | None:
        """Where another live contender runs, or None. Marks of the dead are removed: those without a sign of life, and
        the one left by the last holder from this very folder, whose file lock we hold now."""
        found, now = None, time.monotonic()
        for key, value in registry.tags().items():
            if not key.startswith(LOCK_TAG) or key == self.own:
                continue
            former, since = self.seen.get(key, (None, now))
            self.seen[key] = (value, since if former == value else now)
            if key == self.dead or now - self.seen[key][1] > LOCK_EXPIRES_S:
                registry.delete_tag(key)
            else:
                found = _place(value)
        return found


def _place(mark: str) -> str:
    try:
        return str(json.loads(mark)["place"])
    except (ValueError, KeyError, TypeError):
        return f"somebody ({mark[:80]})"
