"""The drift tests: right about chance whatever the pictures are like, and quick to see what is different."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, ks_2samp

from monitoring.shift import FIGURES, TESTS, Sample, compare
from tests.tiny import tiny_model_folder
from training.model.properties import PROPERTIES
from training.model.reference import DIRECTIONS, Reference

RATE = 0.05


def sample(count: int, seed: int, *, shift: float = 0.0, column: int = 0, cats: float = 0.5) -> Sample:
    """Pictures whose figures hang together, as real ones do, and repeat."""
    random = np.random.default_rng(seed)
    sketches = random.normal(0, 1, (count, DIRECTIONS))
    figures = sketches[:, : len(PROPERTIES)] + random.normal(0, 0.5, (count, len(PROPERTIES)))
    figures[:, 4] = np.round(figures[:, 4])
    figures[:, column] += shift
    confidences = 1 - random.beta(1, 9, count)
    return Sample.of(figures, confidences, random.random(count) > cats, sketches, 512)


def alarms(reference: Sample, window: Sample, rate: float = 0.01) -> list[str]:
    return [test.name for test in compare(reference, window, rate, 1999, seed=1) if test.alarm]


@pytest.mark.slow
def test_without_drift_alarms_come_at_the_stated_rate() -> None:
    windows = 150
    found = sum(
        any(test.alarm for test in compare(sample(40, seed), sample(25, 1000 + seed), RATE, 399, seed))
        for seed in range(windows)
    )
    assert binomtest(found, windows, RATE).pvalue > 0.001, f"{found} of {windows}"


def test_p_values_are_those_of_the_known_test() -> None:
    reference, window = sample(200, 1), sample(150, 2, shift=0.2)
    tests = {test.name: test for test in compare(reference, window, 0.01, 1999, seed=1)}
    known = ks_2samp(reference.figures[:, 0], window.figures[:, 0], method="exact")
    assert tests["brightness"].statistic == pytest.approx(known.statistic, abs=1e-5)
    assert tests["brightness"].p_value == pytest.approx(known.pvalue, rel=0.25, abs=0.01)


def test_one_shifted_figure_is_named() -> None:
    reference = sample(200, 1)
    assert alarms(reference, sample(200, 2)) == []
    assert alarms(reference, sample(200, 3, shift=1.0, column=2)) == ["sharpness"]


def test_other_labels_are_named() -> None:
    assert alarms(sample(200, 1), sample(200, 2, cats=0.8)) == ["labels"]


def test_other_embeddings_are_named() -> None:
    window = sample(200, 2)
    turned = Sample(window.figures, window.labels, window.sketches + 0.5)
    assert alarms(sample(200, 1), turned) == ["embedding"]


def test_constant_figures_and_labels_never_alarm() -> None:
    count = 60
    flat = Sample.of(np.full((count, 6), 7.0), np.ones(count), np.zeros(count), np.zeros((count, DIRECTIONS)), 512)
    for size in range(20, count, 7):
        tests = compare(flat, flat.take(np.arange(size)), RATE, 399, seed=1)
        assert [test.p_value for test in tests] == [1.0] * len(TESTS)


def test_sizes_beyond_what_prepare_keeps_are_the_same() -> None:
    figures = np.array([[100, 50, 10, 0.3, side, 1.5] for side in (300, 512, 4000)], float)
    seen = Sample.of(figures, np.ones(3), np.zeros(3), np.zeros((3, DIRECTIONS)), 512)
    assert seen.figures[:, FIGURES.index("short_side")].tolist() == [300, 512, 512]


def test_a_log_holds_what_the_reference_holds(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model")
    known = Reference.load(folder.path)
    assert known is not None
    records = [
        {
            "properties": dict(zip(PROPERTIES, row.tolist(), strict=True)),
            "confidence": float(confidence),
            "predicted": folder.classes[label],
            "sketch": base64.b64encode(sketch.tobytes()).decode(),
        }
        for row, confidence, label, sketch in zip(
            known.properties, known.confidences, known.labels, known.sketches, strict=True
        )
    ]
    logged, stored = Sample.of_log(records, folder.classes, known.max_short_side), Sample.of_reference(known)
    for name, value in vars(stored).items():
        np.testing.assert_array_equal(getattr(logged, name), value)
