"""Metrics of several workers, as Prometheus sees them, while workers are killed: real processes, a real scrape."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from training.serving.api import docs
from training.serving.connections import metric_files
from training.serving.records import metrics

ROOT = Path(__file__).parents[3]
WORKERS = 8
WORKER = """
import sys
from training.serving.connections import metric_files
metric_files.install(int(sys.argv[1]))
from prometheus_client import Gauge
from training.serving.records import metrics
in_progress = Gauge("in_progress", "A gauge as BentoML has them", multiprocess_mode="livesum")
in_progress.set(5)
while sys.stdin.readline():
    for number in range(50):
        metrics.PREDICTIONS.labels("cat", "3").inc()
        metrics.CONFIDENCE.labels("3").observe(number / 50)
        metrics.DECODE.observe(0.002)
    print("done", flush=True)
"""


def start(folder: Path, row: int) -> subprocess.Popen[str]:
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    command = [sys.executable, "-c", WORKER, str(row)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True)


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    started = [start(tmp_path, row) for row in range(WORKERS)]
    yield started
    for worker in started:
        worker.kill()
        worker.communicate()


def work(worker: subprocess.Popen[str]) -> None:
    assert worker.stdin
    assert worker.stdout
    worker.stdin.write("go\n")
    worker.stdin.flush()
    assert worker.stdout.readline() == "done\n"


def scrape(folder: Path) -> dict[str, float]:
    """Every sample by its name and labels, as any worker answers /metrics."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {f"{each.name}{each.labels}": each.value for family in families for each in family.samples}


def growing(samples: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in samples.items() if "in_progress" not in name}


@pytest.mark.slow
def test_counters_never_go_backwards_when_workers_are_killed(
    workers: list[subprocess.Popen[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    for worker in workers:
        work(worker)
    before = scrape(tmp_path)
    predictions = "classifier_predictions_total{'label': 'cat', 'version': '3'}"
    assert before[predictions] == before["classifier_decode_seconds_count{}"] == 50 * WORKERS
    assert before["in_progress{}"] == 5 * WORKERS
    for number, worker in enumerate(workers[:3]):
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        work(workers[-1])
        metric_files.forget(number)
        after = scrape(tmp_path)
        assert all(after[name] >= value for name, value in growing(before).items())
        assert after[predictions] == 50 * (WORKERS + number + 1)
        assert after["in_progress{}"] == 5 * (WORKERS - number - 1)
        before = after
    workers[0] = start(tmp_path, 0)  # one is replaced: it counts on, in the same files
    files = set(tmp_path.iterdir())
    work(workers[0])
    after = scrape(tmp_path)
    assert after[predictions] == before[predictions] + 50
    assert after["in_progress{}"] == 5 * (WORKERS - 2)
    assert set(tmp_path.iterdir()) == files


def documented(text: str) -> set[str]:
    """The codes in the parentheses of a text of docs.PROBLEMS."""
    return {code for inside in re.findall(r"\(([a-z0-9_, ]+)\)", text) for code in inside.split(", ")}


def test_every_code_that_is_counted_begins_at_zero() -> None:
    assert set(metrics.CODES) == documented(" ".join(docs.PROBLEMS.values()))


def test_many_classes_make_as_many_series_of_feedback_beforehand_as_there_are_classes() -> None:
    metrics.begin_at_zero("few", [str(number) for number in range(metrics.FEW)])
    metrics.begin_at_zero("thousand", [str(number) for number in range(1000)])
    series = [
        sample.labels for family in metrics.FEEDBACK.collect() for sample in family.samples if "_total" in sample.name
    ]
    assert sum(labels["version"] == "few" for labels in series) == metrics.FEW**2
    thousand = [labels for labels in series if labels["version"] == "thousand"]
    assert len(thousand) == 2 * 1000
    assert all(labels["label"] in (labels["predicted"], metrics.ANOTHER) for labels in thousand)
