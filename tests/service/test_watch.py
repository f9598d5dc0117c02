"""What a live server keeps of its predictions: metrics, the request log, feedback."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from monitoring import request_log
from tests.service.pictures import encode, sideways
from training.inference import Classifier, ModelFolder
from training.preprocess import Preprocessing, load
from training.properties import PROPERTIES, measure
from training.reference import Reference

KEYS = {
    *("time", "request_id", "name", "version", "model_sha256", "label", "predicted", "reason", "confidence"),
    *("probabilities", "novelty", "decode_ms", "queue_ms", "inference_ms", "total_ms", "picture_sha256", "bytes"),
    *("format", "width", "height", "properties", "sketch", "captured"),
}
COUNTED = {
    *("predictions_total", "confidence", "abstentions_total", "rejections_total", "batch_pictures", "decode_seconds"),
    *("queue_seconds", "inference_seconds", "picture_brightness", "picture_contrast", "picture_sharpness"),
    *("picture_saturation", "picture_short_side_pixels", "picture_aspect", "feedback_total"),
    *("request_log_errors_total", "model_info", "waiting_pictures", "waiting_limit", "feedback_accuracy"),
    *("feedback_accuracy_low", "feedback_accuracy_high", "card_accuracy", "card_accuracy_low"),
}


def scrape(client: httpx.Client) -> dict[str, float]:
    """The value of every sample, `name{label=value,...}` with sorted labels."""
    families = text_string_to_metric_families(client.get("/metrics").raise_for_status().text)
    samples = [sample for family in families for sample in family.samples]
    named = [(each.name, ",".join(f"{k}={v}" for k, v in sorted(each.labels.items())), each.value) for each in samples]
    return {f"{name}{{{labels}}}" if labels else name: value for name, labels, value in named}


def grown(client: httpx.Client, before: dict[str, float]) -> dict[str, float]:
    """What was added to counters of our own since."""
    after = scrape(client)
    return {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}


def logged(project: Path, request_id: str) -> list[dict[str, Any]]:
    """The lines about a request, and its pictures; waits for the writer."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        since = datetime.now(UTC) - timedelta(hours=1)
        found = [
            each for each in request_log.read(project / "logs", since) if each["request_id"].startswith(request_id)
        ]
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{request_id} is not in the request log")


def say(client: httpx.Client, request_id: str, label: str) -> httpx.Response:
    return client.post("/feedback", json={"request_id": request_id, "label": label})


@pytest.fixture
def grey() -> bytes:
    """The model is not sure of it."""
    return encode(Image.new("RGB", (40, 40), (128, 128, 128)), "PNG")


def test_every_answer_is_counted_once_by_label_reason_and_error(
    client: httpx.Client, cat: bytes, dog: bytes, grey: bytes
) -> None:
    before = scrape(client)
    for data in (cat, cat, dog, grey):
        client.post("/predict", files={"image": data}).raise_for_status()
    client.post("/predict_batch", files=[("images", cat), ("images", b"x")]).raise_for_status()
    client.post("/predict", files={"image": b"x"})
    client.post("/explain", files={"image": cat}).raise_for_status()
    added = grown(client, before)
    assert added["classifier_predictions_total{label=cat,version=3}"] == 3
    assert added["classifier_predictions_total{label=dog,version=3}"] == 1
    assert added["classifier_predictions_total{label=not_sure,version=3}"] == 1
    assert added["classifier_abstentions_total{reason=low_confidence,version=3}"] == 1
    assert added["classifier_rejections_total{code=not_an_image}"] == 2
    assert added["classifier_confidence_count{version=3}"] == 5
    for name in ("decode_seconds", "queue_seconds", *(f"picture_{name}" for name in ("brightness", "aspect"))):
        assert added[f"classifier_{name}_count"] == 5
    assert added["classifier_batch_pictures_sum"] == 6  # with the explained one
    assert added["classifier_inference_seconds_count"] == added["classifier_batch_pictures_count"] <= 6
    assert 0 < added["classifier_inference_seconds_sum"] < 5


def test_the_facts_of_the_service_are_those_it_tells(client: httpx.Client, cat: bytes) -> None:
    samples, model, card = scrape(client), client.get("/health").json()["model"], client.get("/model").json()
    [info] = [name for name in samples if name.startswith("classifier_model_info")]
    labels = dict(pair.split("=") for pair in info.partition("{")[2].rstrip("}").split(","))
    assert {name: labels[name] for name in ("name", "version", "run_id", "data_hash", "git_commit")} == {
        name: model[name] for name in ("name", "version", "run_id", "data_hash", "git_commit")
    }
    assert model["bento_tag"].endswith(labels["model_sha256"])
    assert samples["classifier_card_accuracy{version=3}"] == card["metrics"]["accuracy"]
    assert samples["classifier_card_accuracy_low{version=3}"] == card["metrics"]["accuracy_interval"][0]
    assert (samples["classifier_waiting_pictures"], samples["classifier_waiting_limit"]) == (0, 128)


def test_a_line_of_the_log_says_all_of_a_prediction(client: httpx.Client, project: Path, cat: bytes) -> None:
    headers = {"X-Request-ID": "a-line"}
    answer = client.post("/predict", files={"image": cat}, headers=headers).raise_for_status().json()
    [line] = logged(project, "a-line")
    folder = ModelFolder.open(project / "models/model")
    pixels = load(cat, folder.preprocessing)
    assert set(line) == KEYS
    for name in ("label", "confidence", "probabilities"):
        assert line[name] == answer[name]
    assert (line["name"], line["version"], line["model_sha256"]) == ("cats-vs-dogs", "3", folder.sha256[:16])
    assert (line["predicted"], line["reason"], line["captured"]) == ("cat", None, None)
    assert (line["picture_sha256"], line["bytes"]) == (hashlib.sha256(cat).hexdigest(), len(cat))
    assert (line["format"], line["width"], line["height"]) == ("PNG", 40, 40)
    assert line["properties"] == pytest.approx(measure(pixels, 40, 40))
    assert tuple(line["properties"]) == PROPERTIES
    assert line["decode_ms"] + line["inference_ms"] < line["total_ms"]
    reference = Reference.load(folder.path)
    assert reference is not None
    novelty, embedding = Classifier(folder).run(pixels[None], ("novelty", "embedding"))
    sketch = np.frombuffer(base64.b64decode(line["sketch"]), "<f2")
    assert sketch == pytest.approx(reference.sketch(embedding)[0], abs=2e-3)
    assert line["novelty"] == pytest.approx(float(novelty[0]), abs=1e-5)


def test_sides_are_those_of_the_picture_held_upright(client: httpx.Client, project: Path) -> None:
    data = sideways()
    assert Image.open(__import__("io").BytesIO(data)).size == (128, 128)
    client.post("/predict", files={"image": data}, headers={"X-Request-ID": "upright"}).raise_for_status()
    [line] = logged(project, "upright")
    assert (line["format"], line["width"], line["height"]) == ("JPEG", 128, 128)
