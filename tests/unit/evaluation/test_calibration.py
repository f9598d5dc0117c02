"""Thresholds, and how well other things are told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.killing import ROOT
from training import params
from training.evaluation.calibration import Calibration
from training.evaluation.trained import EvaluationError, Outputs

pytestmark = pytest.mark.torch

SETTINGS = params.load(ROOT / "params.yaml").evaluate


def seen(count: int, seed: int, strange: float = 0.05) -> tuple[Outputs, np.ndarray]:
    """Outputs for two classes that vary in 8 of 80 directions; `strange`: how much in the others."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    spread = np.where(np.arange(80) < 8, 1.0, strange)
    embeddings = 2.0 + labels[:, None] + random.normal(0, spread, (count, 80))
    logits = np.stack([-1.0 * (2 * labels - 1), 1.0 * (2 * labels - 1)], axis=1) + random.normal(0, 0.5, (count, 2))
    return Outputs(logits, embeddings), labels


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return Calibration.fit(*seen(400, 0), *seen(200, 1), SETTINGS)


def test_other_things_are_told_apart_and_refused(calibration: Calibration) -> None:
    strange = {"noise": seen(30, 3, strange=2.0)[0], "text": seen(20, 4, strange=2.0)[0]}
    found = calibration.describe_others(seen(200, 2)[0], strange)
    assert {kind: values["pictures"] for kind, values in found.items()} == {"all": 50, "noise": 30, "text": 20}
    assert found["all"]["auroc_novelty"]["value"] == 1
    assert found["all"]["not_sure"]["value"] == 1
    assert found["noise"]["not_sure"]["interval"][0] < 1


def test_more_of_the_same_is_not_told_apart(calibration: Calibration) -> None:
    found = calibration.describe_others(seen(200, 2)[0], {"same": seen(200, 5)[0]})
    low, high = found["same"]["auroc_novelty"]["interval"]
    assert low < 0.5 < high
    assert found["same"]["not_sure"]["value"] < 0.1


def test_other_things_may_raise_the_threshold_and_never_lower_it(calibration: Calibration) -> None:
    strange, familiar = seen(200, 6, strange=2.0)[0], seen(200, 7, strange=0.0)[0]
    raised = Calibration.fit(*seen(400, 0), *seen(200, 1), SETTINGS, strange)
    assert raised.novelty_threshold > calibration.novelty_threshold
    novel = raised.novelty.score(strange.embeddings) > raised.novelty_threshold
    assert novel.mean() == pytest.approx(SETTINGS.novelty_catch, abs=0.01)
    kept = Calibration.fit(*seen(400, 0), *seen(200, 1), SETTINGS, familiar)
    assert kept.novelty_threshold == calibration.novelty_threshold


def test_it_is_saved_whole(calibration: Calibration, tmp_path: Path) -> None:
    calibration.save(tmp_path / "calibration.npz")
    again = Calibration.load(tmp_path / "calibration.npz")
    assert again.thresholds() == calibration.thresholds()
    test = seen(50, 8)[0]
    np.testing.assert_array_equal(again.answered(test), calibration.answered(test))
    np.testing.assert_array_equal(again.novelty.projection, calibration.novelty.projection)


def test_without_evaluation_the_command_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="dvc repro evaluate"):
        Calibration.load(tmp_path / "calibration.npz")
