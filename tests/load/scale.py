"""Measure `fetch` and `prepare` at two sizes, and say what more pictures would take.

    python -m tests.load.scale ../shared/data/dogs-vs-cats/train --sizes 2500 10000

Photographs are made of those in the folder: each another crop, half of them mirrored, another brightness, encoded
again. Of each command: minutes, CPU minutes of all its processes, peak memory of the main process and of a worker. The
fit is a + b n through the CPU time at the two sizes, since that hardly depends on what else the machine does. The
exponent between the sizes is 1 where the time grows with the pictures, and 2 where it grows with their square. The
search for near duplicates, which compares pictures with each other, is measured at the sizes that are extrapolated to.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from data.duplicates import Looks, representatives
from data.layout.scan import scan
from tests.killing import command, environment, project
from training.common.command import run_command
from training.common.errors import ExpectedError
from training.common.table import columns

FAR = (25_000, 250_000)  # pictures
STEPS = ("data.fetch", "data.prepare")
MEASURED = """
import json, resource, runpy, sys
try:
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
finally:
    own, workers = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    times = own.ru_utime + own.ru_stime + workers.ru_utime + workers.ru_stime
    print(json.dumps([times, own.ru_maxrss / 1024, workers.ru_maxrss / 1024]), file=sys.stderr)
"""


@dataclass(frozen=True)
class Cost:
    """What a command took: seconds on the clock, CPU seconds, MB of the main process and of the largest worker."""

    wall: float
    cpu: float
    own: float
    worker: float


@dataclass(frozen=True)
class Fit:
    """A line through two sizes, and the exponent of the power law through them."""

    fixed: float
    each: float
    exponent: float

    @classmethod
    def through(cls, sizes: Sequence[int], values: Sequence[float]) -> Fit:
        each = (values[1] - values[0]) / (sizes[1] - sizes[0])
        return cls(values[0] - each * sizes[0], each, math.log(values[1] / values[0]) / math.log(sizes[1] / sizes[0]))

    def at(self, size: int) -> float:
        return self.fixed + self.each * size


def photographs(originals: Sequence[Path], count: int) -> Iterator[tuple[str, bytes]]:
    """Names (`CLASS/NUMBER.jpg`) and bytes of `count` pictures, all different; equal for equal arguments."""
    random = np.random.default_rng(0)
    order = random.permutation(len(originals))
    for number in range(count):
        path = originals[order[number % len(originals)]]
        image = Image.open(path).convert("RGB")
        share = random.uniform(0.6, 0.9)
        left, top = (random.uniform(0, 1 - share) * side for side in image.size)
        image = image.crop(
            (round(left), round(top), round(left + share * image.width), round(top + share * image.height))
        )
        image = ImageEnhance.Brightness(ImageOps.mirror(image) if random.random() < 0.5 else image).enhance(
            random.uniform(0.7, 1.3)
        )
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=90)
        yield f"{path.parent.name}/{number}.jpg", buffer.getvalue()


def measure(folder: Path, module: str) -> Cost:
    """Run a stage in the project `folder`; ExpectedError when it fails."""
    line = [sys.executable, "-c", MEASURED, *command(module)[2:]]
    start = time.perf_counter()
    done = subprocess.run(line, cwd=folder, env=environment(), capture_output=True, text=True)
    wall = time.perf_counter() - start
    if done.returncode:
        raise ExpectedError(f"{module} failed: {done.stderr[-2000:]}")
    return Cost(wall, *json.loads(done.stderr.splitlines()[-1]))


def costs(originals: Sequence[Path], size: int) -> dict[str, Cost]:
    """What each stage takes for `size` photographs."""
    with tempfile.TemporaryDirectory() as made:
        source = Path(made, "source")
        for name, data in photographs(originals, size):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(data)
        folder = project(Path(made, "project"), source="folder", path=str(source))
        return {module: measure(folder, module) for module in STEPS}


def search(size: int) -> float:
    """CPU seconds of the search for near duplicates among `size` pictures that have none."""
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**64, size, dtype=np.uint64)
    looks = Looks(hashes, random.integers(0, 256, (size, 48), dtype=np.uint8), np.zeros(size, dtype=np.int64))
    start = time.process_time()
    representatives(looks, 6)
    return time.process_time() - start


def told(sizes: Sequence[int], found: Sequence[dict[str, Cost]]) -> str:
    """The table, and the fit of each stage."""
    rows = [("stage", "pictures", "minutes", "CPU minutes", "main process MB", "worker MB")]
    fits = []
    for module in STEPS:
        for size, one in zip(sizes, found, strict=True):
            cost = one[module]
            figures = (f"{cost.wall / 60:.1f}", f"{cost.cpu / 60:.2f}", f"{cost.own:.0f}", f"{cost.worker:.0f}")
            rows.append((module, f"{size:,}", *figures))
        cpu, own = (Fit.through(sizes, [getattr(one[module], what) for one in found]) for what in ("cpu", "own"))
        rows += [(module, f"{far:,} (fit)", "", f"{cpu.at(far) / 60:.1f}", f"{own.at(far):.0f}", "") for far in FAR]
        fits.append(
            f"{module}: CPU time {cpu.fixed:.1f} s + {cpu.each * 1000:.2f} s for 1,000, exponent {cpu.exponent:.2f}; "
            f"memory {own.fixed:.0f} MB + {own.each * 1000:.1f} MB for 1,000"
        )
    return "\n".join([columns(rows), *fits])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.load.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="photographs in folders of classes")
    parser.add_argument("--sizes", type=int, nargs=2, default=(2500, 10_000))
    arguments = parser.parse_args()
    originals = scan(arguments.folder).all_pictures()
    found = [costs(originals, size) for size in arguments.sizes]
    print(told(arguments.sizes, found))
    for far in FAR:
        print(f"near duplicates among {far:,} random hashes: {search(far):.1f} s of CPU time")


if __name__ == "__main__":
    run_command(main)
