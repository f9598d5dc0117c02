"""The limit that no server can pass: decode, preprocess and forward in a tight loop, one process for each core."""

from __future__ import annotations

import itertools
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from training.common.cores import usable_cores
from training.model.classifier import Classifier
from training.model.folder import ModelFolder

WARM_UP = 20  # pictures


def throughput(folder: Path, pictures: tuple[bytes, ...], seconds: float) -> float:
    """Pictures a second that the machine classifies without any server."""
    cores = usable_cores()
    manager = get_context("spawn").Manager()
    with manager, ProcessPoolExecutor(cores, get_context("spawn")) as processes:
        together = manager.Barrier(cores)
        rates = [processes.submit(_loop, folder, pictures, seconds, together) for _ in range(cores)]
        return sum(rate.result() for rate in rates)


def lone_milliseconds(folder: Path, pictures: tuple[bytes, ...], seconds: float) -> float:
    """Median time of one picture after another, with the fewest milliseconds that any number of threads gives."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return min(
            process.submit(_median, folder, pictures, seconds, threads).result()
            for threads in range(1, usable_cores() + 1)
        )


def _loop(folder: Path, pictures: tuple[bytes, ...], seconds: float, together: object) -> float:
    classifier = Classifier(ModelFolder.open(folder))
    for picture in itertools.islice(itertools.cycle(pictures), WARM_UP):
        classifier.predict_bytes([picture])
    together.wait()  # type: ignore[attr-defined]
    begun, done = time.perf_counter(), 0
    for picture in itertools.cycle(pictures):
        classifier.predict_bytes([picture])
        done += 1
        if time.perf_counter() - begun >= seconds:
            break
    return done / (time.perf_counter() - begun)


def _median(folder: Path, pictures: tuple[bytes, ...], seconds: float, threads: int) -> float:
    classifier = Classifier(ModelFolder.open(folder), threads)
    times = []
    end = time.perf_counter() + seconds
    for picture in itertools.cycle(pictures):
        begun = time.perf_counter()
        classifier.predict_bytes([picture])
        times.append(time.perf_counter() - begun)
        if time.perf_counter() > end:
            break
    return statistics.median(times[WARM_UP:]) * 1000
