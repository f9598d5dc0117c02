"""What is not a whole, checked champion is not served, and one line says why."""

from __future__ import annotations

import itertools
import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.service.server import Server, children, copy_project, environment, promotion_of
from tests.service.test_watch import scrape
from tests.tiny import tiny_model_folder
from training.model.folder import write_sums
from training.model.pin import PIN_FILE, PROMOTION_FILE, read
from training.serving.records.metrics import CODES


@pytest.fixture
def own(tmp_path: Path, project: Path) -> Path:
    """A project of the test's own, to be spoilt."""
    return Path(shutil.copytree(project, tmp_path / "own"))


def refusal(project: Path, **extra: str) -> str:
    """Start a server that must end by itself; its one line."""
    server = Server.launch(project, project / "home", **extra)
    assert server.process.wait(20) == 1
    log = server.log.read_text()
    assert len(log.strip().splitlines()) == 1, log
    return log


def test_no_champion(own: Path) -> None:
    (own / "models/champion.json").unlink()
    assert "there is no champion to serve" in (line := refusal(own))
    assert "`make run`" in line


def test_a_champion_that_is_not_in_the_store(own: Path) -> None:
    shutil.rmtree(own / "home/models")
    assert "cats-vs-dogs:" in refusal(own)


def stored(project: Path) -> Path:
    [path] = (project / "home/models/cats-vs-dogs").glob("*/model.onnx")
    return path.parent


def test_a_changed_model(own: Path) -> None:
    with (stored(own) / "model.onnx").open("ab") as file:
        file.write(b"\0")
    assert "model.onnx was changed" in refusal(own)


def test_another_model_than_the_pinned_one(own: Path) -> None:
    other = tiny_model_folder(own / "other", skill=0.5)
    shutil.copytree(other.path, stored(own), dirs_exist_ok=True)
    assert "the pin names" in refusal(own)


def test_a_model_that_answers_otherwise_than_at_evaluation(own: Path) -> None:
    card = json.loads((stored(own) / "model_card.json").read_text())
    card["self_check"][0]["probabilities"].reverse()
    (stored(own) / "model_card.json").write_text(json.dumps(card))
    write_sums(stored(own))
    assert "self-check failed" in refusal(own)


def test_a_registry_that_names_another_champion(own: Path) -> None:
    with closing(sqlite3.connect(own / "mlflow.db")) as database:
        database.execute("CREATE TABLE registered_model_aliases (alias, version, name)")
        database.execute("CREATE TABLE model_version_tags (key, value, name, version)")
        database.execute("INSERT INTO registered_model_aliases VALUES ('champion', 4, 'cats-vs-dogs')")
        database.commit()
    assert "is version 4" in refusal(own)


def test_a_champion_that_the_gate_did_not_let_through(own: Path) -> None:
    failed = promotion_of(read(own / PIN_FILE), gate="fail", checks=[{"name": "never worse", "passed": False}])
    (own / PROMOTION_FILE).write_text(json.dumps(failed))
    assert "it failed the gate (never worse): `python -m training.promote --version 3` judges it" in refusal(own)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MODEL_PATH", "/nowhere", "/nowhere is not a folder"),
        ("SERVE_MAX_BITES", "1", "nearest valid key: 'max_bytes'"),
    ],
)
def test_a_wrong_setting(own: Path, name: str, value: str, message: str) -> None:
    assert message in refusal(own, **{name: value})


def test_what_alerts_count_is_there_before_the_first_request(own: Path, cat: bytes) -> None:
    """Prometheus does not see the first rise of a series that begins at 1."""
    server = Server.start(own, own / "home", SERVE_DRAIN="0", SERVE_WORKERS="2")
    try:
        with httpx.Client(base_url=server.url) as client:
            fresh = scrape(client)
            answer = client.post("/predict", files={"image": cat}).raise_for_status().json()
            said = {"request_id": answer["request_id"], "label": "cat"}
            client.post("/feedback", json=said).raise_for_status()
            client.post("/feedback", json=said | {"label": "horse"})
            later = scrape(client)
    finally:
        assert server.stop() == 0
    asked = {name: value for name, value in fresh.items() if name.startswith("bentoml_service_request_total")}
    labels = [dict(pair.split("=") for pair in name.partition("{")[2].rstrip("}").split(",")) for name in asked]
    begun = {(each["endpoint"], each["http_response_code"]) for each in labels}
    assert len(begun) == len(labels)
    for address in ("/predict", "/predict_batch", "/explain", "/feedback", "/health", "/model", "/", "/readyz"):
        assert {(address, status) for status in ("200", "500", "503", "504")} <= begun
    assert {value for name, value in asked.items() if "endpoint=/readyz" not in name} == {0}
    latency = {name for name in fresh if "request_duration_seconds_count" in name and "endpoint=/predict," in name}
    assert [fresh[name] for name in latency] == [0]
    for code in CODES:
        assert fresh[f"classifier_rejections_total{{code={code}}}"] == 0
    for predicted, label in itertools.product(("cat", "dog"), repeat=2):
        assert fresh[f"classifier_feedback_total{{label={label},predicted={predicted},version=3}}"] == 0
    grown = {name for name, value in later.items() if "_total{" in name and value != fresh.get(name)}
    assert {name for name in grown if name not in fresh} == {name for name in grown if "response_code=422" in name}
    assert len(grown) == 6  # three of BentoML's; a prediction, a label that was said, a refusal


def test_model_path_serves_a_folder_and_says_so(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    folder = tiny_model_folder(tmp_path / "folder", ("ant", "bee", "cow"))
    server = Server.start(project, tmp_path / "home", MODEL_PATH=str(folder.path), SERVE_DRAIN="0", SERVE_UI="false")
    try:
        health = httpx.get(f"{server.url}/health").json()
        assert httpx.get(f"{server.url}/ui").status_code == 404
        answer = httpx.post(f"{server.url}/predict", files={"image": (folder.path / "self_check/2.png").read_bytes()})
    finally:
        assert server.stop() == 0
    assert health["source"] == "MODEL_PATH"
    assert health["gate"] is None
    assert health["model"]["version"] is None
    assert answer.headers["X-Model-Version"] == f"sha256:{folder.sha256[:16]}"
    assert answer.json()["label"] == "cow"
    assert list(answer.json()["probabilities"]) == ["ant", "bee", "cow"]


@pytest.mark.needs("procfs")
def test_the_supervisor_and_the_worker_load_neither_torch_nor_mlflow(server: Server) -> None:
    workers = children(server.process.pid)
    assert workers
    for process in (server.process.pid, *workers):
        maps = Path(f"/proc/{process}/maps").read_text()
        assert "libtorch" not in maps
        assert "libarrow" not in maps


def test_a_bento_is_built_with_the_pinned_model_and_without_training_code(own: Path) -> None:
    shutil.copy(Path(__file__).parent.parent.parent / "requirements-serve.lock", own)
    (own / "README.md").write_text("# A copy\n")
    built = make_bento(own)
    files = {path.relative_to(built / "src").as_posix() for path in (built / "src").rglob("*.py")}
    assert {"service.py", "training/model/classifier.py", "training/serving/engine.py"} <= files
    assert (built / "src/models/promotion.json").is_file()
    assert (built / "src/training/serving/ui/index.html").is_file()
    assert not files & {"training/train.py", "training/promote.py"}
    pinned = json.loads((own / "models/champion.json").read_text())["bento_tag"]
    assert pinned in (built / "bento.yaml").read_text()
    assert (built / "src/models/champion.json").read_bytes() == (own / "models/champion.json").read_bytes()


def make_bento(project: Path) -> Path:
    """Run `bentoml build`; the folder of the Bento."""
    command = [str(Path(sys.executable).parent / "bentoml"), "build", "-o", "tag"]
    done = subprocess.run(command, cwd=project, env=environment(project / "home"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tag = done.stdout.strip().splitlines()[-1].removeprefix("__tag__:")
    return project / "home/bentos" / tag.replace(":", "/")
