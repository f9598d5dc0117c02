"""The answers of a live server."""

from __future__ import annotations

import base64
import io
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bentoml
import httpx
import numpy as np
import pytest
from PIL import Image

from tests.service.pictures import encode, good_kinds, plain, sideways
from tests.service.server import Server, batch_sizes, copy_project
from tests.tiny import tiny_model_folder, tiny_picture
from training.model.classifier import Classifier
from training.model.folder import ModelFolder
from training.model.pin import PIN_FILE, read


@pytest.fixture(scope="module")
def classifier(project: Path) -> Classifier:
    """What evaluation uses, on the model that is served."""
    return Classifier(ModelFolder.open(project / "models/model"))


def test_answer_has_exactly_these_keys_and_the_lineage_of_pin_and_card(
    client: httpx.Client, project: Path, cat: bytes
) -> None:
    answer = client.post("/predict", files={"image": cat}).raise_for_status().json()
    pin = read(project / PIN_FILE)
    lineage = json.loads((project / "models/model/model_card.json").read_text())["lineage"]
    assert set(answer) == {"label", "confidence", "probabilities", "model", "request_id"}
    assert answer["label"] == "cat"
    assert answer["confidence"] == max(answer["probabilities"].values())
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert answer["model"] == {
        "name": pin.name,
        "version": pin.mlflow_version,
        "bento_tag": pin.bento_tag,
        "run_id": pin.run_id,
        "data_hash": lineage["data_hash"],
        "git_commit": lineage["git_commit"],
    }


def test_served_probabilities_equal_those_of_evaluation(client: httpx.Client, classifier: Classifier) -> None:
    pictures = [tiny_picture(label, seed) for label in (0, 1) for seed in range(20)]
    expected = classifier.predict_bytes(pictures)
    for data, row in zip(pictures, expected, strict=True):
        answer = client.post("/predict", files={"image": data}).json()
        assert list(answer["probabilities"].values()) == pytest.approx(row.tolist(), abs=1e-6)


def test_the_body_itself_may_be_the_picture(client: httpx.Client, dog: bytes) -> None:
    answer = client.post("/predict", content=dog, headers={"Content-Type": "image/png"})
    assert answer.status_code == 200
    assert answer.json()["label"] == "dog"


@pytest.mark.parametrize("kind", good_kinds())
def test_every_kind_of_picture_is_decoded_as_in_evaluation(
    client: httpx.Client, classifier: Classifier, kind: str
) -> None:
    data = good_kinds()[kind]
    answer = client.post("/predict", files={"image": data}).raise_for_status().json()
    assert list(answer["probabilities"].values()) == pytest.approx(
        classifier.predict_bytes([data])[0].tolist(), abs=1e-6
    )


def test_a_picture_lying_on_its_side_is_turned_upright(client: httpx.Client) -> None:
    heat_map = client.post("/explain", files={"image": sideways()}).raise_for_status()
    pixels = np.asarray(Image.open(io.BytesIO(heat_map.content))).astype(int)
    upper, lower = pixels[:12].mean((0, 1)), pixels[-12:].mean((0, 1))
    assert upper[0] - upper[1] > 60 > lower[0] - lower[1]


def test_request_id_is_taken_or_made_and_version_is_told(client: httpx.Client, cat: bytes) -> None:
    taken = client.post("/predict", files={"image": cat}, headers={"X-Request-ID": "abc-123"})
    assert taken.headers["X-Request-ID"] == taken.json()["request_id"] == "abc-123"
    assert taken.headers["X-Model-Version"] == "3"
    made = client.post("/predict", files={"image": cat}, headers={"X-Request-ID": "not a valid id"})
    assert len(made.headers["X-Request-ID"]) == 32
    assert made.json()["request_id"] == made.headers["X-Request-ID"]


def test_every_answer_tells_where_its_time_went(client: httpx.Client, cat: bytes) -> None:
    def timing(answer: httpx.Response) -> dict[str, float]:
        parts = [part.split(";dur=") for part in answer.headers["Server-Timing"].split(", ")]
        return {name: float(milliseconds) for name, milliseconds in parts}

    steps = ["queue", "decode", "inference", "total"]
    one, many = (
        client.post(path, files=[(name, cat)]) for path, name in (("/predict", "image"), ("/predict_batch", "images"))
    )
    for answer in (one, many, *(client.post(path, files={"image": cat}) for path in ("/explain", "/heatmap"))):
        found = timing(answer)
        assert (answer.status_code, list(found)) == (200, steps)
        assert 0 < found["inference"] < found["total"]
    assert list(timing(client.get("/health"))) == list(timing(client.get("/nothing"))) == ["total"]


def requests_of_one(picture: bytes) -> dict[str, dict[str, Any]]:
    """The bodies in which people send one picture."""
    text = base64.b64encode(picture).decode()
    lines = base64.encodebytes(picture).decode()
    part = b'--b\r\nContent-Disposition: form-data; name="image%b\r\n\r\n' + picture + b"\r\n--b--\r\n"
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    bodies = {
        "media type without a name": part.replace(b"%b", b'"\r\nContent-Type: image/png', 1),
        "octets without a name": part.replace(b"%b", b'"\r\nContent-Type: application/octet-stream', 1),
        "encoded name alone": part.replace(b"%b", b"\"; filename*=UTF-8''k%C3%A4tzchen.png", 1),
        "field of PHP": part.replace(b"%b", b'[]"; filename="a.png"', 1),
    }
    return {name: {"content": body, "headers": form} for name, body in bodies.items()} | {
        "octets": {"content": picture, "headers": {"Content-Type": "application/octet-stream"}},
        "data url": {"json": {"image": f"data:image/png;base64,{text}"}},
        "base64": {"json": {"image": text, "note": "of no matter"}},
        "base64 in lines": {"json": {"image": lines}},
    }


@pytest.mark.parametrize("name", requests_of_one(b""))
@pytest.mark.parametrize("path", ["/predict", "/heatmap"])
def test_a_picture_comes_in_many_forms(client: httpx.Client, cat: bytes, path: str, name: str) -> None:
    expected = client.post(path, files={"image": cat}).raise_for_status().json()
    found = client.post(path, **requests_of_one(cat)[name]).raise_for_status().json()
    expected, found = (answer.get("answer", answer) for answer in (expected, found))
    assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-3)


def test_many_pictures_come_in_json_and_as_php_names_them(client: httpx.Client, cat: bytes, dog: bytes) -> None:
    texts = [base64.b64encode(data).decode() for data in (cat, b"hello", dog)]
    found = client.post("/predict_batch", json={"images": [texts[0], texts[1], f"data:;base64,{texts[2]}"]}).json()
    assert [each.get("label") for each in found] == ["cat", None, "dog"]
    assert found[1]["error"]["code"] == "not_an_image"
    found = client.post("/predict_batch", files=[("images[]", cat), ("images[]", dog)]).json()
    assert [each["label"] for each in found] == ["cat", "dog"]


def test_not_sure_is_an_answer_and_can_be_switched_off(client: httpx.Client) -> None:
    grey = encode(plain((40, 40), (128, 128, 128)), "PNG")
    unsure = client.post("/predict", files={"image": grey}).json()
    assert unsure["label"] is None
    assert unsure["reason"] == "low_confidence"
    sure = client.post("/predict?abstain=false", files={"image": grey}).json()
    assert sure["label"] in ("cat", "dog")
    assert "reason" not in sure
    assert sure["probabilities"] == unsure["probabilities"]


def test_unfamiliar_is_an_answer_and_can_be_switched_off(tmp_path: Path) -> None:
    """The brighter a picture is, the less familiar to the tiny model, however much it looks like a cat."""
    abstention = {"confidence_threshold": 0.6, "risk": 0.01, "novelty_threshold": 1.25, "novelty_quantile": 0.995}
    folder = tiny_model_folder(tmp_path / "folder", abstention=abstention)
    bright = encode(plain((40, 40), (255, 200, 200)), "PNG")
    own = Server.start(copy_project(tmp_path), tmp_path / "home", MODEL_PATH=str(folder.path), SERVE_DRAIN="0")
    try:
        with httpx.Client(base_url=own.url, timeout=20) as client:
            unsure = client.post("/predict", files={"image": bright}).raise_for_status().json()
            [of_batch] = client.post("/predict_batch", files={"images": bright}).raise_for_status().json()
            sure = client.post("/predict?abstain=false", files={"image": bright}).raise_for_status().json()
    finally:
        assert own.stop() == 0
    assert (unsure["label"], unsure["reason"]) == (of_batch["label"], of_batch["reason"]) == (None, "unfamiliar")
    assert sure["label"] == "cat"
    assert "reason" not in sure
    assert sure["probabilities"] == unsure["probabilities"]
    assert unsure["confidence"] > 0.95


def test_batch_answers_in_order_and_one_bad_picture_fails_alone(client: httpx.Client, cat: bytes, dog: bytes) -> None:
    files = [("images", data) for data in (cat, b"no picture", dog, cat)]
    answers = client.post("/predict_batch", files=files, headers={"X-Request-ID": "r"}).raise_for_status().json()
    assert [answer.get("label") for answer in answers] == ["cat", None, "dog", "cat"]
    assert answers[1] == {
        "error": {
            "code": "not_an_image",
            "message": "these bytes are not a picture that can be read",
            "hint": "send one of JPEG, PNG, WEBP, GIF, BMP, TIFF, HEIF, AVIF",
        },
        "request_id": "r.1",
    }
    assert [answer["request_id"] for answer in answers] == ["r.0", "r.1", "r.2", "r.3"]


def test_batch_larger_than_one_run_of_the_network_comes_back_whole(
    client: httpx.Client, cat: bytes, dog: bytes
) -> None:
    files = [("images", data) for data in [cat, dog, dog] * 10]
    answers = client.post("/predict_batch", files=files).raise_for_status().json()
    assert [answer["label"] for answer in answers] == ["cat", "dog", "dog"] * 10


def test_explain_draws_where_the_evidence_is(client: httpx.Client) -> None:
    pixels = np.full((64, 64, 3), 110, np.uint8)
    pixels[:24, :24, 0] = 255  # all the red, and so all that speaks for a cat, is in this corner
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    found = client.post("/heatmap?abstain=false", files={"image": file.getvalue()}).raise_for_status().json()
    heat = np.asarray(found["heat"])
    assert found["explained"] == found["answer"]["label"] == "cat"
    assert heat.argmax() == 0
    assert (heat.min(), heat.max()) == (0, 1)
    drawn = client.post("/explain", files={"image": file.getvalue()})
    assert drawn.headers["Content-Type"] == "image/png"
    assert Image.open(io.BytesIO(drawn.content)).size == (32, 32)
    plain = client.post("/explain?heat=false", files={"image": file.getvalue()})
    assert abs(np.asarray(Image.open(io.BytesIO(plain.content))).astype(int)[-8:, -8:] - 110).max() <= 2


def test_health_and_model_tell_what_is_served(client: httpx.Client, project: Path) -> None:
    health = client.get("/health").json()
    card = json.loads((project / "models/model/model_card.json").read_text())
    assert health["status"] == "ok"
    assert health["source"] == "champion"
    assert health["gate"] == {"verdict": "pass", "forced": None, "judged": "2026-01-02T00:00:00+00:00"}
    told = client.get("/model").json()
    assert told.items() >= card.items()
    assert told["model"] == health["model"]
    assert told["model_sha256"] == read(project / PIN_FILE).model_sha256
    assert client.get("/livez").status_code == client.get("/readyz").status_code == 200


def test_batches_form_from_concurrent_one_picture_requests(client: httpx.Client, cat: bytes) -> None:
    def ask(_: int) -> str:
        label: str = client.post("/predict", files={"image": cat}).json()["label"]
        return label

    before = batch_sizes(client)
    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(ask, range(320))) == ["cat"] * 320
    after = batch_sizes(client)
    assert after["sum"] - before["sum"] == 320
    assert after["count"] - before["count"] < 320


def test_pictures_that_are_slow_to_decode_are_answered_one_after_another(server: Server) -> None:
    """Those decoded first do not wait for the rest to be decoded."""
    slow = encode(plain((2000, 1990), (10, 20, 30, 128), "RGBA"), "PNG")  # an eighth of a second

    def ask(_: int) -> float:
        answer = httpx.post(f"{server.url}/predict", files={"image": slow}, timeout=60)
        assert answer.status_code == 200
        return time.monotonic()

    begun = time.monotonic()
    with ThreadPoolExecutor(32) as pool:
        times = sorted(when - begun for when in pool.map(ask, range(32)))
    assert times[0] < times[-1] / 2


def test_bentoml_client_works(server: Server, tmp_path: Path, cat: bytes) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(cat)
    with bentoml.SyncHTTPClient(server.url) as bento:
        assert bento.predict(image=path)["label"] == "cat"
        assert [answer["label"] for answer in bento.predict_batch(images=[path, path])] == ["cat", "cat"]
        assert Image.open(bento.explain(image=path)).size == (32, 32)
        assert bento.heatmap(image=path)["explained"] == "cat"
        for each in (str(path), Image.open(path), Image.open(io.BytesIO(cat)), Image.open(path.open("rb"))):
            assert bento.predict(image=each)["label"] == "cat"


def test_bentoml_client_takes_no_bytes_and_no_files(server: Server, tmp_path: Path, cat: bytes) -> None:
    """BentoML 1.4.39 asserts that a file is a typing.BinaryIO, and none is. Fails once the README may say more."""
    (tmp_path / "cat.png").write_bytes(cat)
    with bentoml.SyncHTTPClient(server.url) as bento, (tmp_path / "cat.png").open("rb") as file:
        for each in (cat, io.BytesIO(cat), file):
            with pytest.raises(AssertionError):
                bento.predict(image=each)
