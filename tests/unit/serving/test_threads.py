"""Threads for the event loop: every call has its result, its error, or nobody who waits for it."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref

import pytest

from training.serving.threads import TOGETHER, Threads

BRIEF_S, LONG_S = 0.005, 0.2


def test_results_and_errors_reach_those_who_asked() -> None:
    async def scenario() -> list[object]:
        threads = Threads(3, "test")
        calls = [threads.run(divmod, 100, number % 5, brief=number % 2 == 0) for number in range(50)]
        found = await asyncio.gather(*calls, return_exceptions=True)
        threads.close()
        return found

    found = asyncio.run(scenario())
    assert [found[number] for number in range(1, 5)] == [divmod(100, number) for number in range(1, 5)]
    assert [number for number, each in enumerate(found) if isinstance(each, ZeroDivisionError)] == [*range(0, 50, 5)]


def test_what_nobody_waits_for_any_more_is_not_done() -> None:
    done: list[str] = []

    async def scenario() -> str:
        threads = Threads(1, "test")
        running = threads.run(time.sleep, BRIEF_S)
        given_up = threads.run(done.append, "given up")
        given_up.cancel()
        running.cancel()
        return await threads.run(str, 7)

    assert asyncio.run(scenario()) == "7"
    assert not done


class Body:
    """What a client sent; that it is gone can be seen."""


def test_what_failed_keeps_nothing_alive() -> None:
    def refuse(body: Body) -> None:
        raise ValueError("refused")

    async def scenario() -> int:
        threads = Threads(1, "test")
        alive: weakref.WeakSet[Body] = weakref.WeakSet()
        for _ in range(20):
            body = Body()
            alive.add(body)
            with pytest.raises(ValueError, match="refused"):
                await threads.run(refuse, body)
            del body
        return len(alive)

    gc.disable()
    try:
        assert asyncio.run(scenario()) <= 1
    finally:
        gc.enable()


def test_an_error_that_no_future_takes_is_told_all_the_same() -> None:
    async def scenario() -> int:
        threads = Threads(1, "test")
        with pytest.raises(RuntimeError, match="StopIteration"):
            await threads.run(next, iter(()))
        return await threads.run(int, "5")

    assert asyncio.run(scenario()) == 5


@pytest.mark.parametrize("number", [1, 2])
def test_brief_work_is_told_together_and_before_long_work_if_another_thread_could_go_on_with_it(number: int) -> None:
    told: list[float] = []

    async def scenario() -> float:
        threads = Threads(number, "test")
        for _ in range(number - 1):
            threads.run(time.sleep, 2 * LONG_S)
        begun = time.perf_counter()
        calls: list[asyncio.Future[None]] = [threads.run(time.sleep, BRIEF_S, brief=True) for _ in range(4)]
        long = threads.run(time.sleep, LONG_S)
        for call in calls:
            call.add_done_callback(lambda _: told.append(time.perf_counter() - begun))
        await long
        return time.perf_counter() - begun

    whole = asyncio.run(scenario())
    assert min(told) >= 4 * BRIEF_S
    assert (max(told) < whole - LONG_S / 2) == (number > 1)


def test_many_brief_results_do_not_wait_for_the_last() -> None:
    async def scenario() -> float:
        threads = Threads(1, "test")
        begun = time.perf_counter()
        calls: list[asyncio.Future[None]] = [threads.run(time.sleep, BRIEF_S, brief=True) for _ in range(4 * TOGETHER)]
        await calls[0]
        first = time.perf_counter() - begun
        await calls[-1]
        return first / (time.perf_counter() - begun)

    assert asyncio.run(scenario()) < 0.5


def test_closing_ends_the_threads_when_all_is_done() -> None:
    done: list[int] = []

    async def scenario() -> None:
        threads = Threads(2, "to-be-closed")
        for number in range(20):
            threads.run(done.append, number)
        threads.close()

    asyncio.run(scenario())
    assert sorted(done) == [*range(20)]
    assert not [each for each in threading.enumerate() if each.name.startswith("to-be-closed")]


@pytest.mark.parametrize("brief", [True, False])
def test_a_result_is_told_though_the_thread_then_waits(brief: bool) -> None:
    async def scenario() -> int:
        return await asyncio.wait_for(Threads(1, "test").run(int, "5", brief=brief), 5)

    assert asyncio.run(scenario()) == 5
