"""The counters of workers: real processes that read one another's figures, and die."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from training.serving.connections import shared_counters
from training.serving.connections.shared_counters import Count, SharedCounters

ROOT = Path(__file__).parents[3]
OTHER = """
import sys
from pathlib import Path
from training.serving.connections.shared_counters import SharedCounters, Count
counters = SharedCounters(Path(sys.argv[1]), 2)
counters.add(Count.PICTURES, int(sys.argv[3]))
counters.add(Count.CONNECTIONS, int(sys.argv[2]))
counters.add(Count.LISTENING, 1)
print("joined", flush=True)
sys.stdin.readline()
"""


def start(path: Path, connections: int = 2, pictures: int = 5) -> subprocess.Popen[str]:
    """Another worker that listens, with so many pictures waiting."""
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER, path, str(connections), str(pictures)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout
    assert other.stdout.readline() == "joined\n"
    return other


@pytest.mark.slow
def test_workers_see_one_another_and_a_row_is_free_again_when_its_worker_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "counters"
    with start(path) as first:
        mine = SharedCounters(path, 2)
        mine.add(Count.PICTURES, 2)
        mine.add(Count.CONNECTIONS, 1)
        assert (mine.mine(Count.PICTURES), mine.all(Count.PICTURES)) == (2, 7)
        assert (mine.fewest_connections(), mine.all(Count.SLOW_PIXELS)) == (2, 0)  # this one does not listen
        mine.add(Count.LISTENING, 1)
        assert mine.fewest_connections() == 1
        monkeypatch.setattr(shared_counters, "JOIN_S", 0.2)
        third = subprocess.run(
            [
                sys.executable,
                "-c",
                f"from training.serving.connections import shared_counters; shared_counters.JOIN_S = 0.2\n{OTHER}",
                path,
                "0",
                "5",
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert "2 workers serve already" in third.stderr
        dead: list[int] = []
        mine.forget_the_dead(dead.append)
        assert mine.all(Count.PICTURES) == 7
        assert dead == []
        first.kill()
    mine.forget_the_dead(dead.append)
    assert dead == [0]
    assert (mine.all(Count.PICTURES), mine.fewest_connections()) == (2, 1)
    with start(path) as second:
        assert mine.all(Count.PICTURES) == 7
        second.kill()
    with start(path) as third_time:
        assert mine.all(Count.PICTURES) == 7  # what the dead had there is gone
        third_time.kill()
