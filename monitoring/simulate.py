"""How often the drift check alarms without drift, and what it finds: windows drawn from labelled photographs.

Without drift twice. Drawn anew: reference and window are both dealt from the photographs, each time anew. These checks
are independent draws, each with the stated chance of an alarm, so their number is binomial. The model's own: windows
against the one reference of the model, as in production. They share what is peculiar to that reference, so they alarm
together or not at all: over many models their mean is the stated rate, for one model it may be anything near it.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from scipy.stats import binomtest
from threadpoolctl import threadpool_limits

from monitoring.served import Served
from monitoring.shift import Sample, Test, compare
from training import params
from training.common.cores import usable_cores
from training.common.errors import ExpectedError
from training.common.progress import Bar
from training.model.classifier import Classifier
from training.model.picture.header import open_checked
from training.model.preprocess import Preprocessing, shrink, upright_size, whole
from training.model.properties import PROPERTIES, measure
from training.model.reference import Reference
from training.params import Drift
from training.score import labelled

Seen = tuple[list[float], float, int, NDArray[np.float16]]  # properties, confidence, label, sketch: as in a log
Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return open_checked(file.getvalue())


def _noise(image: Image.Image, random: np.random.Generator) -> Image.Image:
    return Image.fromarray(random.integers(0, 256, (image.height, image.width, 3), dtype=np.uint8))


def _drawing(image: Image.Image, _: np.random.Generator) -> Image.Image:
    """Dark lines on white along the edges of the picture."""
    lines = ImageOps.grayscale(image.filter(ImageFilter.GaussianBlur(1))).filter(ImageFilter.CONTOUR)
    return ImageOps.autocontrast(lines, cutoff=2).convert("RGB")


CHANGES: dict[str, Change] = {
    "darker": lambda image, _: ImageEnhance.Brightness(image).enhance(0.7),
    "a little darker": lambda image, _: ImageEnhance.Brightness(image).enhance(0.9),
    "blurred": lambda image, _: image.filter(ImageFilter.GaussianBlur(2)),
    "a little blurred": lambda image, _: image.filter(ImageFilter.GaussianBlur(1)),
    "jpeg": lambda image, _: _jpeg(image, 10),
    "rotated": lambda image, _: image.transpose(Image.Transpose.ROTATE_90),
    "upside down": lambda image, _: image.transpose(Image.Transpose.ROTATE_180),
    "drawings": _drawing,
    "noise": _noise,
}


@dataclass(frozen=True)
class Shift:
    """`share` of a window's pictures are changed as CHANGES says, or are all of the first class."""

    name: str
    change: str | None
    share: float


SHIFTS = (
    Shift("darker: brightness x 0.7", "darker", 1),
    Shift("brightness x 0.9", "a little darker", 1),
    Shift("blurred: Gaussian, sigma 2 pixels", "blurred", 1),
    Shift("blurred: sigma 1 pixel", "a little blurred", 1),
    Shift("JPEG of quality 10", "jpeg", 1),
    Shift("rotated by 90 degrees", "rotated", 1),
    Shift("upside down", "upside down", 1),
    Shift("only {first}", None, 1),
    Shift("3 in 4 {first}", None, 0.5),
    Shift("only drawings", "drawings", 1),
    Shift("drawings, 1 in 10 pictures", "drawings", 0.1),
    Shift("only noise", "noise", 1),
    Shift("noise, 1 in 20 pictures", "noise", 0.05),
)


@dataclass(frozen=True)
class Plan:
    """How many windows are drawn, of what sizes, and how they are checked."""

    windows: int
    shifted_windows: int
    sizes: Sequence[int]
    chosen: Drift


@dataclass(frozen=True)
class Pool:
    """The pictures windows are drawn from: as they are, changed, and which are of the first class."""

    plain: Sample
    changed: dict[str, Sample]
    first: NDArray[np.bool_]

    def window(self, shift: Shift, size: int, random: np.random.Generator) -> Sample:
        """`size` different pictures, some or all of them shifted."""
        count = round(shift.share * size)
        if shift.change is None:
            chosen = random.choice(np.flatnonzero(self.first), count, replace=False)
            rest = random.choice(np.setdiff1d(np.arange(len(self.plain)), chosen), size - count, replace=False)
            return self.plain.take(np.concatenate([chosen, rest]))
        chosen = random.choice(len(self.plain), size, replace=False)
        return Sample.join(self.changed[shift.change].take(chosen[:count]), self.plain.take(chosen[count:]))


class SimulationError(ExpectedError):
    """The pictures are too few, or the check alarms more often than stated."""


def look(model: Served, known: Reference, folder: Path) -> Pool:
    """What the model sees in the pictures of a class tree, and in changed ones."""
    files = labelled(folder, params.load().data.rename)
    classifier = Classifier(model.folder)
    how = model.folder.preprocessing

    def one(number: int) -> list[Seen]:
        data = files[number].path.read_bytes()
        image = whole(open_checked(data), how.value_range)
        random = np.random.default_rng(number)
        images = [open_checked(data), *(change(image, random) for change in CHANGES.values())]
        return [_seen(classifier, known, each, how) for each in images]

    with ThreadPoolExecutor(usable_cores()) as pool:
        rows = list(Bar(pool.map(one, range(len(files))), "altering", len(files), unit="picture"))
    samples = [_sample(seen, known.max_short_side) for seen in zip(*rows, strict=True)]
    first = np.array([file.label == model.folder.classes[0] for file in files])
    return Pool(samples[0], dict(zip(CHANGES, samples[1:], strict=True)), first)


def _sample(seen: Sequence[Seen], cap: int) -> Sample:
    properties, confidences, labels, sketches = zip(*seen, strict=True)
    return Sample.of(np.array(properties), np.array(confidences), np.array(labels), np.array(sketches), cap)


def _seen(classifier: Classifier, known: Reference, image: Image.Image, how: Preprocessing) -> Seen:
    turned = upright_size(image.size, image)
    pixels = shrink(image, how)
    probabilities, embedding = classifier.run(pixels[None], ("probabilities", "embedding"))
    properties = measure(pixels, *turned)
    sketch = known.sketch(embedding)[0].astype(np.float16)
    figures = [properties[name] for name in PROPERTIES]
    return figures, float(probabilities.max()), int(probabilities.argmax()), sketch


Draw = Callable[[np.random.Generator], tuple[Sample, Sample]]


@dataclass(frozen=True)
class Row:
    """How many of `windows` alarmed, and by which tests."""

    name: str
    size: int
    windows: int
    alarms: int
    tests: dict[str, int]

    def interval(self) -> tuple[float, float]:
        low, high = binomtest(self.alarms, self.windows).proportion_ci(method="exact")
        return float(low), float(high)

    def as_dict(self) -> dict[str, Any]:
        low, high = self.interval()
        return asdict(self) | {"share": self.alarms / self.windows, "low": low, "high": high}

    def cells(self) -> str:
        low, high = self.interval()
        often = [name for name, count in Counter(self.tests).most_common() if 2 * count > self.alarms]
        found = f"{self.alarms / self.windows:.1%} ({low:.1%} to {high:.1%})"
        return f"| {self.name} | {self.size} | {self.alarms} of {self.windows} | {found} | {', '.join(often)} |"


def run(name: str, size: int, windows: int, draw: Draw, chosen: Drift, bar: Bar) -> Row:
    """Check `windows` draws of (reference, window), each from a seed of its own."""

    def one(number: int) -> list[Test]:
        reference, window = draw(np.random.default_rng([chosen.seed, size, number]))
        tests = compare(reference, window, chosen.false_alarms, chosen.permutations, chosen.seed + number)
        bar.update()
        return tests

    with threadpool_limits(1), ThreadPoolExecutor(usable_cores()) as pool:
        checks = list(pool.map(one, range(windows)))
    alarms = [[test.name for test in tests if test.alarm] for tests in checks]
    counts = {test.name: sum(test.name in names for names in alarms) for test in checks[0]}
    return Row(name, size, windows, sum(map(bool, alarms)), counts)


def table(rows: Sequence[Row]) -> str:
    """The table of DRIFT.md, in Markdown."""
    head = [
        "| drift | pictures | alarms | share (95 % interval) | by, in most of the alarms |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *(row.cells() for row in rows)])


def rows(model: Served, known: Reference, folder: Path, plan: Plan) -> list[Row]:
    """Its rows; SimulationError when alarms without drift are more than the stated rate allows."""
    pool = look(model, known, folder)
    own = Sample.of_reference(known)
    count = min(len(own), len(pool.plain) // 2)
    least = int(pool.first.sum())
    if max(plan.sizes) > min(count, least):
        raise SimulationError(f"{folder} holds {len(pool.plain)} pictures, {least} of the first class: too few")
    found: list[Row] = []
    total = len(plan.sizes) * (2 * plan.windows + len(SHIFTS) * plan.shifted_windows)
    with Bar(total=total, desc="checking", unit="window") as bar:
        for size in plan.sizes:
            of_size = _rows(pool, own, count, size, model.folder.classes[0], plan, bar)
            found += of_size
            first = of_size[0]
            if binomtest(first.alarms, first.windows, plan.chosen.false_alarms, "greater").pvalue < 0.01:
                raise SimulationError(f"more alarms without drift than {plan.chosen.false_alarms:.1%}: {first.cells()}")
    return found


def _rows(pool: Pool, own: Sample, count: int, size: int, first: str, plan: Plan, bar: Bar) -> list[Row]:
    def anew(random: np.random.Generator) -> tuple[Sample, Sample]:
        dealt = random.permutation(len(pool.plain))
        return pool.plain.take(dealt[:count]), pool.plain.take(dealt[count : count + size])

    def plain(random: np.random.Generator) -> tuple[Sample, Sample]:
        return own, pool.plain.take(random.choice(len(pool.plain), size, replace=False))

    rows = [
        run("none; reference and window drawn anew", size, plan.windows, anew, plan.chosen, bar),
        run("none; the model's own reference", size, plan.windows, plain, plan.chosen, bar),
    ]
    for shift in SHIFTS:

        def shifted(random: np.random.Generator, shift: Shift = shift) -> tuple[Sample, Sample]:
            return own, pool.window(shift, size, random)

        name = shift.name.format(first=first)
        rows.append(run(name, size, plan.shifted_windows, shifted, plan.chosen, bar))
    return rows
