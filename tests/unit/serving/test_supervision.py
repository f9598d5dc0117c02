"""Deaths of workers are said with their reason; after a few in a row a stand-in goes before the next one."""

from __future__ import annotations

from typing import Any

import pytest

from training.serving.bento import supervision
from training.serving.bento.supervision import STAND_IN, Supervised

ARGS = ["-m", "worker", "service:X", "--fd", "$(circus.sockets.api)", "--worker-id", "$(CIRCUS.WID)"]


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(supervision, "time", clock)
    return clock


@pytest.fixture
def watcher(clock: Clock) -> Supervised:
    made = Supervised(name="service", cmd="python", args=ARGS, numprocesses=2, loop=object())
    made._status = "active"
    return made


def start(watcher: Supervised, pid: int) -> Any:
    """The arguments that it is started with."""
    assert watcher.call_hook("before_spawn")
    args = watcher.args
    assert watcher.call_hook("after_spawn", pid=pid)
    return args


def end(watcher: Supervised, pid: int, code: int = -7) -> None:
    watcher.call_hook("after_reap", process_pid=pid, exit_code=code, time=0, process_status=None)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Supervised, "notify_event", lambda *_: None)


def test_a_death_is_said_with_its_reason(watcher: Supervised, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    start(watcher, 1)
    clock.now += 90
    end(watcher, 1)
    assert "worker 1 was killed by SIGBUS (a disk that holds a mapped file is full" in caplog.text
    assert "after 90 s" in caplog.text
    assert start(watcher, 2) == ARGS


def test_after_a_few_in_a_row_a_stand_in_goes_first_and_longer_each_time(watcher: Supervised, clock: Clock) -> None:
    begun = []
    for pid in range(1, 8):
        begun.append(start(watcher, pid))
        clock.now += 30 if pid > supervision.FEW else 5  # its stand-in does not make a worker old
        end(watcher, pid)
    plain, stood_in = begun[: supervision.FEW], begun[supervision.FEW :]
    assert plain == [ARGS] * supervision.FEW
    expected = [["-m", STAND_IN, "$(circus.sockets.api)", str(pause), *ARGS] for pause in (2, 5, 10, 20)]
    assert stood_in == expected


def test_an_old_worker_ends_the_row_and_answers_for_all(watcher: Supervised, clock: Clock) -> None:
    start(watcher, 100)
    clock.now += supervision.YOUNG_S + 1
    for pid in range(1, 8):
        assert start(watcher, pid) == ARGS
        end(watcher, pid)
    end(watcher, 100)
    assert watcher.deaths == 1


def test_what_ends_because_the_service_stops_is_no_death(watcher: Supervised, caplog: pytest.LogCaptureFixture) -> None:
    start(watcher, 1)
    watcher._status = "stopping"
    end(watcher, 1, code=0)
    assert caplog.text == ""
    assert watcher.deaths == 0
