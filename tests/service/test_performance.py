"""The performance check against a live server: fine as it is, an error on skew, low accuracy or another model."""

from __future__ import annotations

import base64
import json
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from data.errors import DataError
from monitoring import drift, performance, request_log
from monitoring.judged import Judged
from tests.service.server import ROOT, Server, copy_project, make_champion
from tests.service.test_load import locust
from tests.service.test_smoke import smoke
from tests.tiny import tiny_model_folder, tiny_picture
from training.common.intervals import wilson_corrected
from training.model.folder import ModelFolder


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelFolder:
    """The very model that the server serves."""
    monkeypatch.chdir(ROOT)
    (tmp_path / "logs").mkdir()
    monkeypatch.setenv("SERVE_LOG_DIR", str(tmp_path / "logs"))
    return tiny_model_folder(tmp_path / "model")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 labelled pictures, and one file that is none."""
    folder = tmp_path_factory.mktemp("labelled")
    for label, name in enumerate(("cats", "dogs")):
        (folder / name).mkdir()
        for number in range(30):
            (folder / name / f"{number}.png").write_bytes(tiny_picture(label, 7000 + number))
    (folder / "dogs/broken.png").write_bytes(b"no picture")
    return folder


def run(model: Path, pictures: Path, *words: str) -> None:
    performance.main(["--model", str(model), "--test-dir", str(pictures), *words])


def test_the_service_answers_as_the_model_does(
    server: Server, model: ModelFolder, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(model.path, pictures, "--url", server.url)
    out = capsys.readouterr().out
    assert f"{server.url}: accuracy 0.9" in out
    assert f"61 pictures, 1 refused, counted as wrong: {pictures}/dogs/broken.png (not_an_image)" in out


def test_the_log_of_the_service_is_checked_for_drift(
    server: Server, project: Path, model: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_PATH", str(model.path))
    for number in range(60):
        data = tiny_picture(number % 2, 8000 + number)
        httpx.post(f"{server.url}/predict", files={"image": data}).raise_for_status()
    logs = project / "logs"
    words = ["check", "--log-dir", str(logs), "--exit-zero"]
    while (found := checked(words, logs))["pictures"] < 60:
        time.sleep(0.1)  # the service writes its log every now and then
    page = httpx.get(f"{server.url}/metrics").text
    (logs / "drift.json").unlink()
    version = f'{{version="sha256:{model.sha256[:16]}"}}'
    assert f"classifier_drift_alarm{version} {float(found['alarm'])}" in page
    assert page.count("classifier_drift_score{") == 9


def test_pictures_that_are_sent_to_try_the_service_are_no_traffic(
    server: Server, project: Path, model: ModelFolder, pictures: Path
) -> None:
    since, logs = datetime.now(UTC), project / "logs"
    run(model.path, pictures, "--url", server.url)
    files = [("images", tiny_picture(0, number)) for number in range(2)]
    headers = {"X-Request-ID": f"{request_log.CHECK_PREFIX}batch"}
    httpx.post(f"{server.url}/predict_batch", files=files, headers=headers).raise_for_status()
    while "check-batch.1" not in (lines := "".join(path.read_text() for path in logs.glob("requests-*"))):
        time.sleep(0.1)
    assert lines.count('"check-') >= 62
    assert list(request_log.read(logs, since)) == []


def checked(words: list[str], logs: Path) -> dict[str, Any]:
    drift.main(words)
    found: dict[str, Any] = json.loads((logs / "drift.json").read_text())
    return found


def test_skew_is_an_error(server: Server, model: ModelFolder, pictures: Path, tmp_path: Path) -> None:
    other = tiny_model_folder(tmp_path / "other", bias=0.3)
    page = tmp_path / "page.html"
    with pytest.raises(
        performance.PerformanceError, match=r"train/serve skew: \d+ of 61 pictures .* \(worst 0\.\d+: /"
    ):
        run(other.path, pictures, "--url", server.url, "--report", str(page))
    assert "train/serve skew" in page.read_text()


def test_another_model_is_an_error(server: Server, pictures: Path, model: ModelFolder, tmp_path: Path) -> None:
    lineage = model.card["lineage"] | {"seed": 2}
    other = tiny_model_folder(tmp_path / "other", lineage=lineage)
    with pytest.raises(performance.PerformanceError, match=r"serves cats-vs-dogs:\w{16}, here is version sha256:"):
        run(other.path, pictures, "--url", server.url)


def test_low_accuracy_is_an_error(model: ModelFolder, pictures: Path, tmp_path: Path) -> None:
    swapped = tmp_path / "swapped"
    swapped.mkdir()
    for name, other in (("cats", "dogs"), ("dogs", "cats")):
        (swapped / name).symlink_to(pictures / other)
    with pytest.raises(
        performance.PerformanceError, match=r"accuracy 0\.\d+ .* is below the interval of the model card"
    ):
        run(model.path, swapped)


def test_a_service_that_cannot_be_asked_is_told(model: ModelFolder, pictures: Path) -> None:
    with pytest.raises(performance.PerformanceError, match="cannot be asked"):
        run(model.path, pictures, "--url", "http://127.0.0.1:9")


def test_what_is_no_address_of_a_service_is_told_with_the_mend(
    server: Server, model: ModelFolder, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for word in ("127.0.0.1:3311", "localhost", "http://"):
        with pytest.raises(SystemExit) as end:
            run(model.path, pictures, "--url", word)
        assert end.value.code == 2
        assert "begins with http:// or https://" in capsys.readouterr().err
    for path in ("/ui", "/docs", "/health"):
        with pytest.raises(performance.PerformanceError, match=f"{path}/model is not the service .*: --url is its own"):
            run(model.path, pictures, "--url", server.url + path)


def test_a_service_with_keys_gets_the_one_in_the_environment(
    tmp_path: Path, model: ModelFolder, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = copy_project(tmp_path / "project")
    make_champion(project, project / "home")
    server = Server.start(project, project / "home", SERVE_DRAIN="0", API_KEYS="secret")
    try:
        monkeypatch.delenv("API_KEY", raising=False)
        with pytest.raises(performance.PerformanceError, match="asks for an API key: set API_KEY in the environment"):
            run(model.path, pictures, "--url", server.url)
        monkeypatch.setenv("API_KEY", "wrong")
        with pytest.raises(performance.PerformanceError, match="the one in API_KEY is none of its keys"):
            run(model.path, pictures, "--url", server.url)
        monkeypatch.setenv("API_KEY", "secret")
        run(model.path, pictures, "--url", server.url)
        monkeypatch.delenv("API_KEY")
        monkeypatch.setenv("API_KEYS", "secret,other")  # as the service itself reads them
        run(model.path, pictures, "--url", server.url)
        (tmp_path / "known/cat").mkdir(parents=True)
        (tmp_path / "known/cat/1.png").write_bytes(tiny_picture(0, 7, noise=0.0))
        checked = smoke(server.url, "--fail-on-error", SMOKE_PICTURES=str(tmp_path / "known"))
        assert checked.returncode == 0, checked.stdout
        loaded = locust(server, server.url, 1, LOAD_P95_MS="20000")
        assert loaded.returncode == 0, loaded.stdout + loaded.stderr
    finally:
        server.stop()


def test_the_folder_is_looked_at_before_the_model(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is not a folder"):
        run(tmp_path / "no model", tmp_path / "nowhere")


def test_of_train_and_test_only_the_latter_is_scored(
    model: ModelFolder, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree, page = tmp_path / "tree", tmp_path / "page.html"
    tree.mkdir()
    for name in ("train", "test"):
        (tree / name).symlink_to(pictures)
    run(model.path, tree, "--report", str(page))
    told = f"{tree}, its folder test only"
    out = capsys.readouterr().out
    assert f"pictures of {told}" in out
    assert "61 pictures" in out
    assert told in page.read_text()


def test_a_folder_that_is_no_class_is_named(model: ModelFolder, pictures: Path, tmp_path: Path) -> None:
    for name, target in (("cats", "cats"), ("dogs", "dogs"), ("birds", "cats")):
        (tmp_path / "tree").mkdir(exist_ok=True)
        (tmp_path / "tree" / name).symlink_to(pictures / target)
    with pytest.raises(performance.PerformanceError, match="tree/birds: the model knows cat, dog only"):
        run(model.path, tmp_path / "tree")


def test_of_many_refused_files_the_first_few_are_named(
    model: ModelFolder, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree, page = tmp_path / "tree", tmp_path / "page.html"
    shutil.copytree(pictures, tree)
    for number in range(7):
        (tree / f"cats/broken{number}.png").write_bytes(b"")
    run(model.path, tree, "--report", str(page))
    told = f"8 refused, counted as wrong: {tree}/cats/broken0.png (empty), {tree}/cats/broken1.png (empty), "
    for text in (capsys.readouterr().out, page.read_text()):
        assert told in text
        assert f"{tree}/cats/broken4.png (empty), 3 more" in text
        assert "broken5" not in text


def test_the_interval_is_that_of_live_accuracy() -> None:
    rows = pd.DataFrame({"label": ["cat"] * 4, "prediction": ["cat", "cat", "dog", "dog"]})
    judged = Judged(None, "the model offline", "pictures", rows)  # type: ignore[arg-type]
    assert judged.interval == wilson_corrected(2, 4)


def test_only_few_pictures_may_differ() -> None:
    rows = pd.DataFrame({"path": ["a", "b", "c"], "refused": [None, None, "corrupt"]}).astype("string")
    rows["prediction"] = ["cat", "dog", None]
    offline = rows.assign(cat=[0.9, 0.2, np.nan], dog=[0.1, 0.8, np.nan])
    online = rows.assign(cat=[0.905, 0.23, np.nan], dog=[0.095, 0.77, np.nan])
    skew = performance.compare(online, offline, ("cat", "dog"))
    assert (skew.pictures, skew.path, skew.relabelled) == (1, "b", 0)
    assert skew.worst == pytest.approx(0.03)
    assert performance.compare(online, offline.assign(refused=[None, None, None]), ("cat", "dog")).worst == 1.0
    barely = rows.assign(cat=[0.501, 0.2, np.nan], dog=[0.499, 0.8, np.nan])
    other = barely.assign(cat=[0.499, 0.2, np.nan], dog=[0.501, 0.8, np.nan], prediction=["dog", "dog", None])
    skew = performance.compare(other, barely, ("cat", "dog"))
    assert (skew.pictures, skew.relabelled) == (0, 1)


def test_the_page_shows_feedback_and_drift(
    model: ModelFolder, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = tmp_path / "logs"
    now = datetime.now(UTC)
    request = {
        "time": now.isoformat(),
        "request_id": "1",
        "version": "3",
        "model_sha256": model.sha256[:16],
        "predicted": "cat",
        "confidence": 0.9,
        "total_ms": 9.0,
        "properties": dict.fromkeys(("brightness", "contrast", "sharpness", "saturation", "short_side", "aspect"), 1.0),
        "sketch": base64.b64encode(np.zeros(32, "<f2").tobytes()).decode(),
    }
    lines = [json.dumps(request | {"picture_sha256": f"{number:064x}"}) for number in range(60)]
    lines += [
        json.dumps(request | {"picture_sha256": f"{number:064x}", "request_id": "check-7.1"}) for number in (70, 71)
    ]
    (logs / "requests-7.jsonl").write_text("\n".join(lines) + "\n")
    said = [
        {"time": (now - timedelta(hours=number)).isoformat(), "request_id": f"{number // 2}", "version": "3"}
        | {"label": "cat", "predicted": ("cat", "dog")[number % 2]}
        for number in reversed(range(40))
    ]
    said.append(said[-1] | {"request_id": "check-7.1", "predicted": "dog"})
    (logs / "feedback.jsonl").write_text("".join(json.dumps(line) + "\n" for line in said))
    page = tmp_path / "page.html"
    with pytest.raises(SystemExit) as end:
        run(model.path, pictures, "--report", str(page), "--check-drift")
    assert end.value.code == 3
    assert "drift: brightness" in capsys.readouterr().out
    text = page.read_text()
    assert (
        text.count('src="data:image/png;base64,') == 5 + 9
    )  # confusion, calibration, latency, accuracy, labels; drift
    assert "each version, the legend names how many" in text
    assert "60 pictures of 60 predictions" in text
    assert "<td>3<td>20<td>1.0000" in text  # the later of two on one request counts
    assert "http" not in text
