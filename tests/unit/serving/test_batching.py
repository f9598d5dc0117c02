"""A lone request never waits for company, and batches form from what queued up while the network was busy."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NoReturn

from training.serving.bento.batching import Dispatcher

WORK_S = 0.02


def fallback() -> NoReturn:
    raise AssertionError("a request was given up")


def dispatcher() -> Dispatcher:
    return Dispatcher(batches=2, max_batch=4, fallback=fallback)


async def turns() -> None:
    """Let the event loop do what is due now, and nothing that waits for a time."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_lone_request_after_a_busy_time_is_worked_on_at_once() -> None:
    sizes: list[int] = []

    async def work(batch: Sequence[list[int]]) -> list[int]:
        sizes.append(len(batch))
        await asyncio.sleep(WORK_S)
        return [number * 2 for [number] in batch]

    async def scenario() -> None:
        call = dispatcher()(work)
        busy = await asyncio.gather(*(call([number]) for number in range(200)))
        assert busy == [number * 2 for number in range(200)]
        assert max(sizes) == 4
        assert len(sizes) < 100
        for number in range(5):
            before = len(sizes)
            lone = asyncio.ensure_future(call([number]))
            await turns()
            assert sizes[before:] == [1]  # BentoML's own estimate holds it back for 130 ms here
            assert await lone == number * 2

    asyncio.run(scenario())


def test_one_failing_batch_fails_alone() -> None:
    async def work(batch: Sequence[list[int]]) -> list[int]:
        if [13] in batch:
            raise ValueError("13")
        await asyncio.sleep(0)
        return [number for [number] in batch]

    async def scenario() -> list[object]:
        call = dispatcher()(work)
        results: list[object] = await asyncio.gather(*map(call, ([n] for n in range(40))), return_exceptions=True)
        return results

    results = asyncio.run(scenario())
    failed = [number for number, result in enumerate(results) if isinstance(result, ValueError)]
    assert 13 in failed
    assert len(failed) <= 4


def test_what_nobody_waits_for_any_more_is_not_worked_on() -> None:
    seen: list[int] = []
    go_on = asyncio.Event()

    async def work(batch: Sequence[list[int]]) -> list[int]:
        seen.extend(number for [number] in batch)
        await go_on.wait()
        return [number for [number] in batch]

    async def scenario() -> list[int]:
        call = dispatcher()(work)
        calls = [asyncio.ensure_future(call([number])) for number in range(20)]
        await turns()
        assert seen == [*range(8)]  # two batches of four run
        for given_up in calls[8:16]:
            given_up.cancel()
        go_on.set()
        return [await calls[number] for number in (*range(8), *range(16, 20))]

    assert asyncio.run(scenario()) == [*range(8), *range(16, 20)]
    assert sorted(seen) == [*range(8), *range(16, 20)]


def test_a_request_of_many_is_split_into_batches() -> None:
    sizes: list[int] = []

    async def work(batch: Sequence[list[int]]) -> list[list[int]]:
        sizes.append(sum(map(len, batch)))
        return [[number * 2 for number in numbers] for numbers in batch]

    assert asyncio.run(dispatcher()(work)(list(range(10)))) == [number * 2 for number in range(10)]
    assert max(sizes) == 4


def test_of_a_request_of_many_that_was_given_up_no_further_part_is_worked_on() -> None:
    seen: list[int] = []
    go_on = asyncio.Event()

    async def work(batch: Sequence[list[int]]) -> list[list[int]]:
        seen.extend(number for numbers in batch for number in numbers)
        await go_on.wait()
        return list(batch)

    async def scenario() -> object:
        call = dispatcher()(work)
        many = asyncio.ensure_future(call(list(range(20))))
        await turns()
        assert seen == [*range(8)]  # two batches of four run
        many.cancel()
        await turns()
        go_on.set()
        return await call([99])

    assert asyncio.run(scenario()) == [99]
    assert sorted(seen) == [*range(8), 99]
