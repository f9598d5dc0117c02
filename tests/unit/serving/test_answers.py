"""Why an answer names no class: the thresholds of the model card decide, unless the client wants a class anyway."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.tiny import SIZE, tiny_model_folder
from training.model.classifier import Classifier
from training.model.folder import ModelFolder
from training.serving.api.answers import Answerer
from training.serving.engine import OUTPUTS, Seen
from training.serving.uploads import Decoded, Upload

CONFIDENCE, NOVELTY = 0.75, 1.25  # float32 holds both exactly
LESS_SURE = float(np.nextafter(np.float32(CONFIDENCE), np.float32(0)))
LESS_FAMILIAR = float(np.nextafter(np.float32(NOVELTY), np.float32(2)))
EDGES = {  # confidence, novelty, reason
    "sure and familiar": (0.9, 1.0, None),
    "at both thresholds": (CONFIDENCE, NOVELTY, None),
    "a little less sure": (LESS_SURE, NOVELTY, "low_confidence"),
    "a little less familiar": (CONFIDENCE, LESS_FAMILIAR, "unfamiliar"),
    "neither": (LESS_SURE, LESS_FAMILIAR, "unfamiliar"),
}
COLOURS = {  # red is a cat to the tiny model, green a dog; the brighter a picture is, the less familiar
    "red": ((190, 100, 100), "cat", None),
    "green": ((100, 190, 100), "dog", None),
    "grey": ((128, 128, 128), "cat", "low_confidence"),
    "bright red": ((255, 200, 200), "cat", "unfamiliar"),
    "white": ((255, 255, 255), "cat", "unfamiliar"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    abstention = {"confidence_threshold": CONFIDENCE, "novelty_threshold": NOVELTY}
    return tiny_model_folder(tmp_path_factory.mktemp("answers") / "model", abstention=abstention)


def answer(folder: ModelFolder, pixels: NDArray[np.uint8], seen: Seen, abstain: bool) -> dict[str, Any]:
    picture = Upload(Decoded(pixels, {}, 0.0, None), "r", abstain, 0.0, 0.0)
    return Answerer(folder, None).answer(picture, seen)


def assert_answer(answer: dict[str, Any], label: str, reason: str | None) -> None:
    """`label` is what the network takes it for; `reason` why the answer does not say so."""
    assert answer["label"] == (None if reason else label)
    assert ("reason" in answer) == bool(reason)
    assert answer.get("reason") == reason
    assert answer["confidence"] == answer["probabilities"][label] == max(answer["probabilities"].values())


@pytest.mark.parametrize("abstain", [True, False])
@pytest.mark.parametrize("edge", EDGES)
def test_the_reason_at_the_thresholds(folder: ModelFolder, edge: str, abstain: bool) -> None:
    confidence, novelty, reason = EDGES[edge]
    probabilities = np.array([1 - confidence, confidence], np.float32)
    seen = Seen(probabilities, novelty, np.zeros((2, 4, 4), np.float32), None, 0.0, 0.0)
    found = answer(folder, np.zeros((SIZE, SIZE, 3), np.uint8), seen, abstain)
    assert_answer(found, "dog", reason if abstain else None)


@pytest.mark.parametrize("abstain", [True, False])
@pytest.mark.parametrize("name", COLOURS)
def test_the_reason_for_what_the_network_sees(folder: ModelFolder, name: str, abstain: bool) -> None:
    colour, label, reason = COLOURS[name]
    pixels = np.full((SIZE, SIZE, 3), colour, np.uint8)
    probabilities, novelty, activation, _ = (output[0] for output in Classifier(folder).run(pixels[None], OUTPUTS))
    seen = Seen(probabilities, float(novelty), activation, None, 0.0, 0.0)
    assert_answer(answer(folder, pixels, seen, abstain), label, reason if abstain else None)
