"""How many pictures may wait: in all, and of one worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.unit.serving.test_shared_counters import start
from training.model.preprocess import Preprocessing
from training.params import load
from training.serving.api.requests import Reader
from training.serving.connections.shared_counters import SharedCounters
from training.serving.errors import Fault
from training.serving.threads import Threads

ROOT = Path(__file__).parents[3]


def request(client: str = "a") -> Any:
    return SimpleNamespace(state=SimpleNamespace(client=client))


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """Of one of two workers; 40 pictures may wait, in requests of up to 16."""
    settings = load(ROOT / "params.yaml").serve.model_copy(update={"max_waiting": 40, "max_pictures": 16})
    threads = Threads(1, "test")
    made = Reader(settings, Preprocessing(), cast(Any, None), threads, SharedCounters(tmp_path / "counters", 2))
    yield made
    made.close()
    threads.close()


def test_a_worker_takes_its_part_and_no_more(reader: Reader) -> None:
    reader._enter(request(), 16)
    reader._enter(request(), 4)
    assert reader.waiting == 20
    with pytest.raises(Fault) as refused:
        reader._enter(request(), 1)
    assert refused.value.status == 503
    assert reader.waiting == 20  # what is refused does not wait


def test_what_waits_elsewhere_counts(reader: Reader, tmp_path: Path) -> None:
    with start(tmp_path / "counters", pictures=25) as other:
        reader._enter(request(), 15)
        with pytest.raises(Fault):
            reader._enter(request(), 1)
        other.kill()


def test_who_leaves_makes_room(reader: Reader) -> None:
    first = request()
    reader._enter(first, 20)
    reader.leave(first)
    reader._enter(request(), 20)
    assert reader.waiting == 20


def test_one_client_gets_half_while_another_asks(reader: Reader) -> None:
    first = request()
    reader._enter(first, 10)
    reader._enter(request("b"), 1)
    with pytest.raises(Fault):
        reader._enter(request(), 1)
    reader._enter(request("b"), 9)
    reader.leave(first)
    reader._enter(request("c"), 10)  # of one that holds nothing


def test_a_request_too_large_for_the_places_is_let_in_when_nobody_waits(reader: Reader) -> None:
    reader._enter(request(), 60)
    with pytest.raises(Fault):
        reader._enter(request("b"), 1)


def test_what_takes_long_makes_room_for_others_and_has_bounds_of_its_own(reader: Reader) -> None:
    first = request()
    reader._enter(first, 20)
    reader._enter_slow(first, 20, 30_000_000)
    assert reader.waiting == 0
    second = request()
    reader._enter(second, 20)
    with pytest.raises(Fault) as refused:
        reader._enter_slow(second, 20, 11_000_000)
    assert "that are slow to decode" in str(refused.value)
    reader.leave(first)
    reader._enter_slow(second, 20, 60_000_000)
