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
from tests.service.pictures import encode, plain
from training.model.classifier import Classifier
from training.model.folder import ModelFolder
from training.model.preprocess import load
from training.model.properties import PROPERTIES, measure
from training.model.reference import Reference

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
    "feedback_pictures",
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
    while not (project / "logs").is_dir() and time.monotonic() < deadline:
        time.sleep(0.05)
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
    return encode(plain((40, 40), (128, 128, 128)), "PNG")


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
    assert added["classifier_inference_seconds_sum"] > 0


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
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(plain((120, 50), (200, 60, 60)), "JPEG", exif=exif)
    client.post("/predict", files={"image": data}, headers={"X-Request-ID": "upright"}).raise_for_status()
    [line] = logged(project, "upright")
    assert (line["format"], line["width"], line["height"]) == ("JPEG", 50, 120)
    assert (line["properties"]["short_side"], line["properties"]["aspect"]) == (50, pytest.approx(50 / 120))


def test_pictures_of_a_batch_have_their_own_lines_and_what_is_not_predicted_has_none(
    client: httpx.Client, project: Path, cat: bytes, grey: bytes
) -> None:
    files = [("images", cat), ("images", b"x"), ("images", grey)]
    client.post("/predict_batch", files=files, headers={"X-Request-ID": "many"}).raise_for_status()
    client.post("/explain", files={"image": cat}, headers={"X-Request-ID": "many-explained"}).raise_for_status()
    client.post("/predict", files={"image": cat}, headers={"X-Request-ID": "after-many"}).raise_for_status()
    logged(project, "after-many")
    lines = logged(project, "many")
    assert [line["request_id"] for line in lines] == ["many.0", "many.2"]
    assert [line["label"] for line in lines] == ["cat", None]
    assert (lines[1]["reason"], lines[1]["predicted"] in ("cat", "dog")) == ("low_confidence", True)


def test_no_picture_is_kept_unless_asked(client: httpx.Client, project: Path, cat: bytes) -> None:
    client.post("/predict", files={"image": cat}, headers={"X-Request-ID": "kept"}).raise_for_status()
    logged(project, "kept")
    assert not (project / "logs/captured").exists()


def test_feedback_at_once_after_the_answer_changes_live_accuracy(
    client: httpx.Client, project: Path, cat: bytes
) -> None:
    before = scrape(client)
    ids = [client.post("/predict", files={"image": cat}).json()["request_id"] for _ in range(2)]
    told = say(client, ids[0], "cat").raise_for_status().json()
    assert told == {"request_id": ids[0], "label": "cat", "predicted": "cat", "correct": True, "version": "3"}
    assert say(client, ids[0], "cat").json() == told
    assert say(client, ids[1], "cat").json()["correct"] is True
    assert say(client, ids[1], "dog").json()["correct"] is False
    added = grown(client, before)
    assert added["classifier_feedback_total{label=cat,predicted=cat,version=3}"] == 2
    assert added["classifier_feedback_total{label=dog,predicted=cat,version=3}"] == 1
    feedback = request_log.read_feedback(project / "logs")  # that of tests before this one too
    said = {each["request_id"]: each["label"] == each["predicted"] for each in feedback}
    right = sum(said.values())
    now = scrape(client)
    assert now["classifier_feedback_accuracy{version=3}"] == pytest.approx(right / len(said))
    low, high = (now[f"classifier_feedback_accuracy_{end}{{version=3}}"] for end in ("low", "high"))
    assert low < right / len(said) < high
    assert now["classifier_feedback_pictures{version=3}"] == len(said)


def test_feedback_on_a_picture_of_a_batch(client: httpx.Client, cat: bytes) -> None:
    first, _ = client.post("/predict_batch", files=[("images", cat)] * 2).json()
    assert first["request_id"].endswith(".0")
    assert say(client, first["request_id"], "cat").json()["correct"] is True


def test_feedback_on_an_id_that_was_sent_with_two_pictures_is_refused(
    client: httpx.Client, cat: bytes, dog: bytes
) -> None:
    before = scrape(client)
    for data in (cat, cat, dog):
        said = say(client, "order-17", "cat")
        client.post("/predict", files={"image": data}, headers={"X-Request-ID": "order-17"}).raise_for_status()
    assert said.json()["predicted"] == "cat"  # after the same picture twice
    refused = say(client, "order-17", "cat")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "ambiguous_request_id")
    assert grown(client, before)["classifier_rejections_total{code=ambiguous_request_id}"] == 1


@pytest.mark.parametrize(
    ("content", "media", "status", "code"),
    [
        (b'{"request_id": "never seen", "label": "cat"}', "application/json", 404, "unknown_request"),
        (b'{"request_id": "x", "label": "horse"}', "application/json; charset=utf-8", 422, "unknown_label"),
        (b'{"request_id": "x"}', "application/json", 422, "wrong_feedback"),
        (b'{"request_id": 7, "label": "cat"}', "application/json", 422, "wrong_feedback"),
        (b'{"request_id": "", "label": "cat"}', "application/json", 422, "wrong_feedback"),
        (b'{"request_id": "x", "label": "cat", "more": 1}', "application/json", 422, "wrong_feedback"),
        (b"{", "application/json", 422, "wrong_feedback"),
        (b"\xff\xfe", "application/json", 422, "wrong_feedback"),
        (b"", "application/json", 422, "wrong_feedback"),
        (b"[1]", "application/json", 422, "wrong_feedback"),
        (b'{"request_id": "x", "label": "cat"}', "text/plain", 415, "wrong_content_type"),
        (b" " * 10_001, "application/json", 413, "too_many_bytes"),
    ],
)
def test_bad_feedback_is_refused(client: httpx.Client, content: bytes, media: str, status: int, code: str) -> None:
    answer = client.post("/feedback", content=content, headers={"Content-Type": media})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["X-Request-ID"] == answer.json()["request_id"]


def test_labels_of_metrics_take_no_value_from_a_client(client: httpx.Client, cat: bytes) -> None:
    client.post("/predict", files={"image": cat}, headers={"X-Request-ID": "secret-id"}).raise_for_status()
    say(client, "secret-id", "secret-label")
    say(client, "secret-request", "cat")
    assert "secret" not in client.get("/metrics").text


def test_every_metric_is_there(client: httpx.Client, project: Path, cat: bytes) -> None:
    say(client, client.post("/predict", files={"image": cat}).json()["request_id"], "cat").raise_for_status()
    names = {name.partition("{")[0].removeprefix("classifier_") for name in scrape(client)}
    assert {name for name in COUNTED if name not in names and f"{name}_count" not in names} == set()


def test_what_the_drift_check_found_is_a_metric_and_a_broken_file_breaks_nothing(
    client: httpx.Client, project: Path
) -> None:
    found = {
        "time": "2026-11-24T12:00:00+00:00",
        "version": "3",
        "enough_pictures": False,
        "alarm": True,
        "tests": [{"property": "brightness", "statistic": 0.4, "p_value": 1e-9, "threshold": 1e-3, "alarm": True}],
    }
    path = project / "logs/drift.json"
    path.write_text(json.dumps(found))
    samples = scrape(client)
    assert samples["classifier_drift_score{property=brightness,version=3}"] == 0.4
    assert samples["classifier_drift_alarm{version=3}"] == 1
    assert samples["classifier_drift_enough_pictures{version=3}"] == 0
    checked = datetime.fromtimestamp(samples["classifier_drift_checked_timestamp_seconds{version=3}"], UTC)
    assert checked.isoformat() == found["time"]
    path.write_text(json.dumps(found)[:40])
    assert not any("drift" in name for name in scrape(client))
    path.unlink()
    assert not any("drift" in name for name in scrape(client))


def test_feedback_that_cannot_be_read_costs_live_accuracy_only(client: httpx.Client, project: Path, cat: bytes) -> None:
    answer = client.post("/predict", files={"image": cat}).json()
    say(client, answer["request_id"], "cat").raise_for_status()
    path, aside = project / "logs/feedback.jsonl", project / "logs/aside"
    path.rename(aside)
    path.mkdir()
    try:
        samples, card = scrape(client), client.get("/model").raise_for_status().json()
        refused = say(client, answer["request_id"], "dog")
    finally:
        path.rmdir()
        aside.rename(path)
    assert any(name.startswith("classifier_model_info") for name in samples)
    assert not any(name.startswith("classifier_feedback_accuracy") for name in samples)
    assert (card["model"]["version"], card["live"]) == ("3", None)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_recorded")
    assert "classifier_feedback_accuracy{version=3}" in scrape(client)


def test_bentoml_counts_the_requests_whatever_they_become(client: httpx.Client, cat: bytes) -> None:
    before = scrape(client)
    client.post("/predict", files={"image": cat}).raise_for_status()
    client.post("/predict", files={"image": b"no picture"})
    client.get("/predict")
    after = scrape(client)
    counted = {
        code: sum(after[name] - before.get(name, 0) for name in after if _is_of(name, code)) for code in (200, 405, 415)
    }
    assert counted == {200: 1, 405: 1, 415: 1}
    assert {after[name] for name in after if "request_in_progress" in name and "endpoint=/predict," in name} == {0}


def _is_of(name: str, code: int) -> bool:
    return name.startswith("bentoml_service_request_total{endpoint=/predict,") and f"http_response_code={code}," in name
