"""Work that can wait: all of it is done, by whom and when ever; what is too much is told."""

from __future__ import annotations

import threading

import pytest

from training.serving.records import deferred
from training.serving.records.deferred import Deferred


def nothing_lost(item: int) -> None:
    raise AssertionError(item)


def test_many_items_are_worked_on_together_without_being_asked() -> None:
    done: list[list[int]] = []
    all_added, all_done = threading.Event(), threading.Event()

    def work(items: list[int]) -> None:
        all_added.wait(60)
        done.append(items)
        if sum(map(len, done)) == 50:
            all_done.set()

    works: Deferred[int] = Deferred("test", work, nothing_lost)
    for number in range(50):
        works.add(number)
    all_added.set()
    assert all_done.wait(60)
    assert [number for items in done for number in items] == [*range(50)]
    assert len(done) <= 2  # what was there at the first look, and the rest
    works.close()


def test_flush_and_close_do_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferred, "EVERY_S", 60)
    done: list[int] = []
    works: Deferred[int] = Deferred("to-be-closed", done.extend, nothing_lost)
    works.add(1)
    works.flush()
    assert done == [1]
    works.add(2)
    works.close()
    assert done == [1, 2]
    assert not [each for each in threading.enumerate() if each.name == "to-be-closed"]


def test_an_error_is_told_and_what_it_costs_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    done: list[int] = []
    lost: list[int] = []

    def work(items: list[int]) -> None:
        if 13 in items:
            raise ValueError("13")
        done.extend(items)

    works: Deferred[int] = Deferred("test", work, lost.append)
    works.add(13)
    works.flush()
    works.add(14)
    works.close()
    assert (done, lost) == ([14], [13])
    assert "some of what was to be kept is lost" in caplog.text
