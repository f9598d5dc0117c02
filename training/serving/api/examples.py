"""Answers as the documentation shows them, for a model of given classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from training.serving.errors import Fault

REQUEST_ID = "5743f6a7baeb4c5097ab4bf2f122008e"
SURE, UNSURE = 0.98, 0.52  # of the likeliest class
MODEL = {
    "name": "cats-vs-dogs",
    "version": "3",
    "bento_tag": "cats-vs-dogs:0123456789abcdef",
    "run_id": "0123456789abcdef0123456789abcdef",
    "data_hash": "d54e4482",
    "git_commit": "15cc4315",
}
METRICS = """# HELP classifier_predictions_total Predictions by label
# TYPE classifier_predictions_total counter
classifier_predictions_total{label="cat",version="3"} 17.0
"""


def answers(classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """For each operation its answers, by what they show."""
    sure, unsure = answer(classes, SURE), answer(classes, UNSURE, "low_confidence")
    rejected = Fault(422, "corrupt", "the picture cannot be decoded", "send a complete, undamaged file")
    batch = [sure | {"request_id": f"{REQUEST_ID}.0"}, rejected.body(f"{REQUEST_ID}.1")]
    verdict = {"verdict": "pass", "forced": None, "judged": "2026-01-01T00:00:00+00:00"}
    return {
        "predict": {"sure": sure, "not sure": unsure},
        "predict_batch": {"one answered, one broken": batch},
        "heatmap": {"a map": {"explained": classes[0], "heat": [[0.0, 0.2], [0.4, 1.0]], "answer": sure}},
        "feedback": {
            "kept": {
                "request_id": REQUEST_ID,
                "label": classes[-1],
                "predicted": classes[0],
                "correct": False,
                "version": "3",
            }
        },
        "health": {"a champion": {"status": "ok", "source": "champion", "gate": verdict, "model": MODEL}},
        "model": {"the most important keys": _card(classes)},
    }


def answer(classes: Sequence[str], confidence: float, reason: str | None = None) -> dict[str, Any]:
    """One in which the first class is the likeliest."""
    rest = (1 - confidence) / max(1, len(classes) - 1)
    return {
        "label": None if reason else classes[0],
        "confidence": confidence,
        "probabilities": {name: round(rest if index else confidence, 4) for index, name in enumerate(classes[:5])},
        **({"reason": reason} if reason else {}),
        "model": MODEL,
        "request_id": REQUEST_ID,
    }


def _card(classes: Sequence[str]) -> dict[str, Any]:
    return {
        "name": MODEL["name"],
        "classes": list(classes),
        "metrics": {"accuracy": 0.98, "accuracy_interval": [0.96, 0.99], "pictures": 396},
        "model": MODEL,
        "model_sha256": "0123456789abcdef" * 4,
        "promotion": {"verdict": {"gate": "pass"}, "former": []},
        "live": {"pictures": 120, "right": 117, "low": 0.93, "high": 0.99},
    }
