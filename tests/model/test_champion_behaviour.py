"""Behaviour of the champion on real photographs: invariance, direction, minimum function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests import parts
from tests.killing import ROOT
from training import params
from training.evaluation import behaviour
from training.model.classifier import Classifier

pytestmark = pytest.mark.needs("champion", "photographs")
EACH = 10  # photographs of a class
LIMITS = params.load(ROOT / "params.yaml").promote


@pytest.fixture(scope="module")
def found(classifier: Classifier, photos: Path) -> dict[str, Any]:
    files = [path for name in ("cats", "dogs") for path in sorted((photos / "test" / name).iterdir())[-EACH:]]

    def probabilities(images: NDArray[np.uint8], _: str) -> NDArray[np.float32]:
        return classifier.predict(images)

    return behaviour.measure(probabilities, [path.read_bytes() for path in files], classifier.folder.preprocessing)


@pytest.mark.parametrize("change", behaviour.INVARIANT)
def test_what_does_not_matter_leaves_the_answers(found: dict[str, Any], change: str) -> None:
    assert found["invariance"][change]["same_answer"]["value"] >= LIMITS.min_invariance
    assert found["invariance"][change]["mean_change"] <= 0.1


@pytest.mark.parametrize("change", behaviour.LESS_SURE)
def test_what_hides_the_animal_lowers_the_confidence(found: dict[str, Any], change: str) -> None:
    assert found["direction"][change]["change"]["value"] <= LIMITS.max_confidence_gain


@pytest.mark.parametrize("name", sorted(name for name in behaviour.named() if name.startswith("test/")))
def test_a_picture_that_anyone_recognises(classifier: Classifier, photos: Path, name: str) -> None:
    if not (photos / name).is_file():
        parts.skip("photographs", f"{name} is not among these photographs")
    probabilities = classifier.predict_bytes([(photos / name).read_bytes()])[0]
    assert classifier.folder.classes[int(probabilities.argmax())] == name.split("/")[1].removesuffix("s")
