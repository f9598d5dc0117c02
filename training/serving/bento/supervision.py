"""What the parent of the workers does when one of them ends: it says why, and when they end again and again, clients
are answered (stand_in.py) before the next attempt instead of waiting at a socket that nobody accepts from."""

from __future__ import annotations

import logging
import time
from typing import Any

import circus.watcher

from training.serving.startup import ending

YOUNG_S = 60.0  # a worker that did not live longer may have died of what the next one will die of
FEW = 3  # such deaths in a row, after which there is a pause before the next attempt
PAUSES_S = (2, 5, 10, 20)  # one after the other; the last again and again
LOOK_S = 2.0  # between looks for workers that ended; BentoML's 10 leave clients alone for long
STAND_IN = "training.serving.bento.stand_in"

log = logging.getLogger("bentoml.workers")


class Supervised(circus.watcher.Watcher):
    """A watcher that tells of deaths, and has a stand-in go before a worker where others died too soon."""

    def __init__(self, *arguments: Any, args: list[str], **options: Any) -> None:
        hooks = {"before_spawn": self.choose, "after_spawn": self.spawned, "after_reap": self.ended}
        super().__init__(*arguments, args=args, hooks={name: (hook, True) for name, hook in hooks.items()}, **options)
        self.worker: list[str] = args
        self.born: dict[int, float] = {}  # by process id: when a worker began, without the time of its stand-in
        self.deaths = 0  # of young workers, in a row
        self.pauses: list[int] = []  # that are due, each before a worker

    def initialize(self, evpub_socket: Any, sockets: Any, arbiter: Any) -> None:
        """Called by circus before its first look."""
        super().initialize(evpub_socket, sockets, arbiter)
        arbiter.ctrl.check_delay = LOOK_S * 1000

    def choose(self, **_: Any) -> bool:
        """Whether what is started next is a worker, or one with a stand-in before it."""
        self.args = self.worker
        if self.pauses:
            socket = self.worker[self.worker.index("--fd") + 1]
            self.args = ["-m", STAND_IN, socket, str(self.pauses[0]), *self.worker]
        return True

    def spawned(self, pid: int, **_: Any) -> bool:
        """Note what was started, and when."""
        self.born[pid] = time.monotonic() + (self.pauses.pop(0) if self.pauses else 0)
        return True

    def ended(self, process_pid: int, exit_code: int, **_: Any) -> None:
        """Say why a worker ended, and decide what follows."""
        now = time.monotonic()
        lived = now - self.born.pop(process_pid, now)
        if self.is_stopping() or self.is_stopped():
            return
        self.deaths = self.deaths + 1 if lived < YOUNG_S else 1
        log.error("worker %d %s after %.0f s; another one follows", process_pid, ending(exit_code), lived)
        if self.deaths >= FEW and all(now - born < YOUNG_S for born in self.born.values()):
            pause = PAUSES_S[min(self.deaths - FEW, len(PAUSES_S) - 1)]
            log.error("%d workers in a row ended soon: for %d s clients are told so", self.deaths, pause)
            self.pauses.append(pause)


def install() -> None:
    """Have BentoML supervise its workers with it. In its parent process, before it starts any."""
    circus.watcher.Watcher = Supervised
