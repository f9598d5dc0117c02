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


def request() -> Any:
    return SimpleNamespace(state=SimpleNamespace())


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
