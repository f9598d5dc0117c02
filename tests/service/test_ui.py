"""The pages of a live server, and what /model tells them."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from training.model.pin import PROMOTION_FILE


def test_pages_are_served_with_their_policy_and_count_for_no_metric(client: httpx.Client) -> None:
    for path in ("/ui", "/ui/model", "/ui/files/try.js", "/ui/samples/0.png"):
        answer = client.get(path).raise_for_status()
        assert answer.headers["X-Request-ID"]
    assert "script-src 'self'" in client.get("/ui").headers["Content-Security-Policy"]
    assert 'endpoint="/ui' not in client.get("/metrics").text


def test_errors_of_the_pages_have_the_shape_of_all_errors(client: httpx.Client) -> None:
    assert client.get("/ui/nothing").json()["error"]["code"] == "not_found"
    refused = client.post("/ui")
    assert refused.status_code == 405
    assert refused.json()["error"]["code"] == "method_not_allowed"


def test_the_model_tells_its_promotion(client: httpx.Client, project: Path) -> None:
    assert client.get("/model").json()["promotion"] == json.loads((project / PROMOTION_FILE).read_text())


def test_the_model_tells_its_live_accuracy(client: httpx.Client, cat: bytes) -> None:
    said = client.post("/predict", files={"image": cat}).json()
    client.post("/feedback", json={"request_id": said["request_id"], "label": "cat"}).raise_for_status()
    live = client.get("/model").json()["live"]
    assert live["pictures"] >= live["right"] >= 1
    assert 0 <= live["low"] <= live["right"] / live["pictures"] <= live["high"] <= 1
