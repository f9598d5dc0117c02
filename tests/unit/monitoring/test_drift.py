"""The drift check on a real request log of a tiny model: what it finds, writes, says, and how it ends."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from monitoring import drift, served
from tests.tiny import SOURCE, tiny_model_folder, tiny_picture
from training.model.classifier import Classifier
from training.model.folder import ModelFolder, write_sums
from training.model.pin import Champion, write
from training.model.preprocess import load
from training.model.properties import measure
from training.model.reference import Reference
from training.serving import startup

pytestmark = pytest.mark.slow

QUICK = {"permutations": 1999, "min_pictures": 30}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return tiny_model_folder(tmp_path_factory.mktemp("drift") / "model")


@pytest.fixture(autouse=True)
def in_a_project(model: ModelFolder, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the model is served, and a check takes little time."""
    values = yaml.safe_load((SOURCE / "params.yaml").read_text())
    folder = tmp_path_factory.mktemp("project")
    (folder / "params.yaml").write_text(yaml.safe_dump(values | {"drift": values["drift"] | QUICK}))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MODEL_PATH", str(model.path))
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))


def record(model: ModelFolder, pixels: np.ndarray, number: int, age: timedelta) -> dict[str, Any]:
    """A line of the request log, as the service writes it."""
    known = Reference.load(model.path)
    assert known is not None
    probabilities, embedding = Classifier(model).run(pixels[None], ("probabilities", "embedding"))
    sketch = known.sketch(embedding)[0].astype("<f2")
    return {
        "time": (datetime.now(UTC) - age).isoformat(timespec="milliseconds"),
        "request_id": f"request-{number}",
        "name": "cats-vs-dogs",
        "version": "3",
        "model_sha256": model.sha256[:16],
        "predicted": model.classes[int(probabilities.argmax())],
        "confidence": float(probabilities.max()),
        "total_ms": 12.5,
        "picture_sha256": f"{hash((number, pixels.tobytes())) % 16**16:016x}" * 4,
        "properties": measure(pixels, 40, 40),
        "sketch": base64.b64encode(sketch.tobytes()).decode(),
    }


def records(
    model: ModelFolder, count: int, *, dark: float = 1.0, first: int = 0, hours: float = 1
) -> list[dict[str, Any]]:
    pictures = [
        load(tiny_picture(number % 2, 9000 + number), model.preprocessing) for number in range(first, first + count)
    ]
    pixels = [(picture * dark).astype(np.uint8) for picture in pictures]
    return [record(model, each, first + number, timedelta(hours=hours)) for number, each in enumerate(pixels)]


def log(folder: Path, lines: Sequence[dict[str, Any]], process: int = 7) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"requests-{process}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def run(model: ModelFolder, folder: Path, *words: str) -> int:
    """The exit code of `check`."""
    try:
        drift.main(["check", "--model", str(model.path), "--log-dir", str(folder), *words])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def found(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "drift.json").read_text())
    return values


def test_familiar_pictures_do_not_alarm(model: ModelFolder, tmp_path: Path) -> None:
    folder = log(tmp_path / "logs", records(model, 60))
    assert run(model, folder) == 0
    values = found(folder)
    assert (values["alarm"], values["pictures"], values["version"]) == (False, 60, f"sha256:{model.sha256[:16]}")
    assert [test["property"] for test in values["tests"]][-3:] == ["confidence", "embedding", "labels"]
    assert datetime.now(UTC) - datetime.fromisoformat(values["time"]) < timedelta(minutes=1)


def test_dark_pictures_alarm(model: ModelFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = log(tmp_path / "logs", records(model, 60, dark=0.5))
    assert run(model, folder, "--report", str(tmp_path / "page.html")) == 3
    values = found(folder)
    named = [test["property"] for test in values["tests"] if test["alarm"]]
    assert values["alarm"]
    assert {"brightness", "embedding"} <= set(named)
    assert "labels" not in named
    assert "aspect" not in named
    assert f"drift: {', '.join(named)}" in capsys.readouterr().out
    page = (tmp_path / "page.html").read_text()
    assert "Drift: brightness" in page
    assert page.count('src="data:image/png;base64,') == 9
    assert run(model, folder, "--exit-zero", "--json") == 0
    assert json.loads(capsys.readouterr().out) == found(folder)


def test_too_few_pictures_are_told(model: ModelFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = records(model, 25)
    folder = log(tmp_path / "logs", [*lines, *lines])
    assert run(model, folder, "--report", str(tmp_path / "page.html")) == 4
    assert "25 pictures of 50 predictions, too few to tell" in capsys.readouterr().out
    assert found(folder) | {"time": None} == found(folder) | {
        "time": None,
        "alarm": False,
        "tests": [],
        "predictions": 50,
    }
    assert "Too few pictures" in (tmp_path / "page.html").read_text()


def test_only_the_window_and_the_model_count(model: ModelFolder, tmp_path: Path) -> None:
    old = records(model, 40, dark=0.5, first=100, hours=30)
    other = [line | {"model_sha256": "0" * 16} for line in records(model, 40, dark=0.5, first=200)]
    folder = log(tmp_path / "logs", [*old, *other, *records(model, 40)])
    assert run(model, folder) == 0
    assert found(folder)["predictions"] == 40
    assert run(model, folder, "--window", "2d") == 3


def test_each_pod_has_a_folder_and_gets_the_finding(model: ModelFolder, tmp_path: Path) -> None:
    for number, name in enumerate(("classifier-a", "classifier-b")):
        log(tmp_path / "logs" / name, records(model, 30, first=100 * number))
    (tmp_path / "logs/captured").mkdir()
    assert run(model, tmp_path / "logs") == 0
    assert found(tmp_path / "logs")["pictures"] == 60
    assert found(tmp_path / "logs/classifier-b") == found(tmp_path / "logs")
    assert not (tmp_path / "logs/captured/drift.json").exists()


def test_of_many_pictures_a_bounded_draw_without_repetition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "comparable", lambda *_: True)
    lines = [{"picture_sha256": f"{number % 700:064x}"} for number in range(5000)]
    drawn = drift.Window.draw(lines, 100, ("cat", "dog"))
    assert drawn.predictions == 5000
    assert [int(line["picture_sha256"], 16) for line in drawn.records] == list(range(100))


def test_an_alarm_that_goes_on_began_when_it_began(model: ModelFolder, tmp_path: Path) -> None:
    folder = log(tmp_path / "logs", records(model, 40, dark=0.3))
    assert run(model, folder) == 3
    first = found(folder)
    assert first["alarm_since"] == first["time"]
    before = first | {"time": "2026-01-01T00:00:00+00:00", "alarm_since": "2026-01-01T00:00:00+00:00"}
    (folder / "drift.json").write_text(json.dumps(before))
    assert run(model, folder) == 3
    assert found(folder)["alarm_since"] == "2026-01-01T00:00:00+00:00"
    del before["alarm_since"]  # as a former version wrote it
    (folder / "drift.json").write_text(json.dumps(before))
    log(folder, records(model, 5))
    assert run(model, folder) == 4  # it cannot tell: the alarm stands
    assert (found(folder)["alarm"], found(folder)["alarm_since"]) == (True, "2026-01-01T00:00:00+00:00")
    log(folder, records(model, 40))
    assert run(model, folder) == 0
    assert found(folder)["alarm_since"] is None


def test_it_needs_only_what_the_service_needs(model: ModelFolder, tmp_path: Path) -> None:
    folder = log(tmp_path / "logs", records(model, 40))
    missing = ("torch", "mlflow", "matplotlib", "scipy", "sklearn", "pandas", "tqdm", "requests", "data")
    script = f"import sys; sys.modules.update(dict.fromkeys({missing})); from monitoring import drift; drift.main()"
    words = ["check", "--log-dir", str(folder)]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "no drift"), done.stderr


def test_an_error_leaves_the_last_finding_alone(model: ModelFolder, tmp_path: Path) -> None:
    folder = log(tmp_path / "logs", records(model, 40))
    assert run(model, folder) == 0
    before = found(folder)
    (tmp_path / "old").mkdir()
    bare = tiny_model_folder(tmp_path / "old/model", reference=False)
    with pytest.raises(drift.DriftError, match="has no reference: train a new version"):
        run(bare, folder)
    with pytest.raises(drift.DriftError, match=r"nowhere is missing: .* --log-dir"):
        run(model, tmp_path / "nowhere")
    with pytest.raises(drift.DriftError, match=r"requests-7\.jsonl is a file, not a folder: .* --log-dir"):
        run(model, folder / "requests-7.jsonl")
    assert found(folder) == before


@pytest.mark.parametrize("word", ["24", "0h", "-3h", "h", "1w", "1000000000d", "999999d", f"{'9' * 400}h"])
def test_a_wrong_window_is_wrong_usage(model: ModelFolder, tmp_path: Path, word: str) -> None:
    assert run(model, tmp_path, f"--window={word}") == 2


@pytest.mark.parametrize("words", ["--min-pictures 0", "--false-alarms 2", "--permutations 10", "--seed x"])
def test_wrong_parameters_are_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str) -> None:
    for command in (["check"], ["simulate", "--pictures", str(tmp_path)]):
        with pytest.raises(SystemExit) as end:
            drift.main([*command, *words.split()])
        assert end.value.code == 2
        assert f"error: command line: {words[2:].split()[0].replace('-', '_')}" in capsys.readouterr().err


def test_an_alarm_stands_until_a_check_can_tell(
    model: ModelFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = log(tmp_path / "logs", records(model, 60, dark=0.5))
    assert run(model, folder) == 3
    alarmed = found(folder)
    log(folder, records(model, 5))
    assert run(model, folder) == run(model, folder) == 4
    assert "the former alarm stands" in capsys.readouterr().out
    values = found(folder)
    assert (values["alarm"], values["tests"]) == (True, alarmed["tests"])
    assert (values["enough_pictures"], values["pictures"]) == (False, 5)
    log(folder, records(model, 60))
    assert run(model, folder) == 0
    assert (found(folder)["alarm"], found(folder)["enough_pictures"]) == (False, True)


@pytest.mark.parametrize("former", ["another model", "damaged"])
def test_no_alarm_stands_but_that_of_the_same_model(model: ModelFolder, tmp_path: Path, former: str) -> None:
    folder = log(tmp_path / "logs", records(model, 60, dark=0.5))
    assert run(model, folder) == 3
    other = json.dumps(found(folder) | {"model_sha256": "0" * 16})
    (folder / "drift.json").write_text(other if former == "another model" else other[:40])
    log(folder, records(model, 5))
    assert run(model, folder) == 4
    assert (found(folder)["alarm"], found(folder)["tests"]) == (False, [])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--dry-run", "--dry-run"),
        ("--false-alarms 0.02", r"other parameters than in params.yaml (false_alarms)"),
        ("--min-pictures 40 --seed 7", "other parameters than in params.yaml (min_pictures, seed)"),
        ("--model other", "--model names another model than the service here serves"),
    ],
)
def test_what_is_not_productions_own_check_is_not_recorded(
    model: ModelFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, reason: str
) -> None:
    tiny_model_folder(Path("other"), seed=1, skill=0.9)
    folder = log(tmp_path / "logs", records(model, 60))
    assert run(model, folder) == 0
    before = found(folder)
    log(folder, records(model, 60, dark=0.5))
    capsys.readouterr()
    page = tmp_path / "page.html"
    run(model, folder, *words.split(), "--json", "--report", str(page))
    said = capsys.readouterr()
    assert said.err.splitlines()[-1] == f"not recorded in drift.json: {reason}"
    assert found(folder) == before
    assert json.loads(said.out)["predictions"] == (0 if "other" in words else 60)
    assert page.exists()


def test_the_default_given_in_words_is_recorded(model: ModelFolder, tmp_path: Path) -> None:
    folder = log(tmp_path / "logs", records(model, 60))
    assert run(model, folder, "--min-pictures", "30") == 0
    assert found(folder)["pictures"] == 60


def test_pictures_of_our_own_checks_are_left_out(model: ModelFolder, tmp_path: Path) -> None:
    lines = [line | {"request_id": f"check-{line['request_id']}.0"} for line in records(model, 60, dark=0.5)]
    folder = log(tmp_path / "logs", [*lines, *records(model, 40)])
    assert run(model, folder) == 0
    assert found(folder)["predictions"] == 40


def test_predictions_of_other_versions_are_told(
    model: ModelFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = records(model, 12)
    other = [line | {"model_sha256": "0" * 16, "version": "23"[number > 4]} for number, line in enumerate(lines)]
    folder = log(tmp_path / "logs", other)
    page = tmp_path / "page.html"
    assert run(model, folder, "--report", str(page)) == 4
    told = "predictions of other versions in the window: 5 of version 2, 7 of version 3; if they go on"
    out = capsys.readouterr().out
    assert "0 pictures of 0 predictions" in out
    assert told in out
    assert "restart the service" in out
    assert told in page.read_text()


def test_the_served_model_is_the_pinned_one_also_in_a_bento(
    model: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin = Champion("cats-vs-dogs", "cats-vs-dogs:0123456789abcdef", "3", "a" * 32, model.sha256)
    write(pin, tmp_path / "src/models/champion.json")
    (tmp_path / "models/cats-vs-dogs").mkdir(parents=True)
    (tmp_path / "models/cats-vs-dogs/0123456789abcdef").symlink_to(model.path)
    monkeypatch.delenv("MODEL_PATH", raising=False)
    monkeypatch.setattr(startup, "IN_A_BENTO", True)
    monkeypatch.setattr(startup, "ROOT", tmp_path / "src")
    monkeypatch.setattr(startup, "pinned", lambda: pin)
    here = served.find()
    assert (here.version, here.folder.sha256) == ("3", model.sha256)
    copy = served.find(tiny_model_folder(tmp_path / "copy").path)
    assert (copy.version, copy.in_service) == ("3", True)
    other = served.find(tiny_model_folder(tmp_path / "other", skill=0.9).path)
    assert (other.version, other.in_service) == (f"sha256:{other.folder.sha256[:16]}", False)
    monkeypatch.setattr(startup, "pinned", lambda: None)
    monkeypatch.setenv("MODEL_PATH", str(model.path))
    assert served.find().version == f"sha256:{model.sha256[:16]}"


def landscape(label: int, seed: int) -> bytes:
    """A picture that is no square, so that turning it can be seen."""
    file = io.BytesIO()
    Image.open(io.BytesIO(tiny_picture(label, seed, side=48))).crop((0, 0, 48, 36)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def of_landscapes(tmp_path: Path) -> ModelFolder:
    """A model whose reference are landscape pictures."""
    folder = tiny_model_folder(tmp_path / "model")
    images = np.stack([load(landscape(number % 2, 5000 + number), folder.preprocessing) for number in range(60)])
    probabilities, embeddings = Classifier(folder).run(images, ("probabilities", "embedding"))
    properties = [measure(image, 48, 36) for image in images]
    Reference.build(properties, probabilities, embeddings, 20 * np.eye(3, dtype=np.float32), 512).save(folder.path)
    write_sums(folder.path)
    return ModelFolder.open(folder.path)


def test_the_simulation_prints_the_table(
    of_landscapes: ModelFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "pictures"
    for label, name in enumerate(("cats", "dogs")):
        (pictures / name).mkdir(parents=True)
        for number in range(40):
            (pictures / f"{name}/{number}.png").write_bytes(landscape(label, 3000 + number))
    words = ["simulate", "--model", str(of_landscapes.path), "--pictures", str(pictures), "--size", "30"]
    drift.main([*words, "--windows", "10", "--shifted-windows", "2"])
    lines = capsys.readouterr().out.splitlines()
    rows = {cells[1].strip(): cells[3].strip() for line in lines[2:] for cells in [line.split("|")]}
    assert int(rows["none; reference and window drawn anew"].split()[0]) <= 2
    assert int(rows["none; the model's own reference"].split()[0]) <= 2
    found = ("darker: brightness x 0.7", "blurred: Gaussian, sigma 2 pixels", "JPEG of quality 10")
    for name in (*found, "rotated by 90 degrees", "only cat", "only drawings", "only noise"):
        assert rows[name] == "2 of 2", name


def test_a_simulation_without_its_pictures_is_refused_in_one_line(model: ModelFolder, tmp_path: Path) -> None:
    words = ("simulate", "--model", str(model.path), "--pictures", str(tmp_path / "none"))
    done = subprocess.run([sys.executable, "-m", "monitoring.drift", *words], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"error: {tmp_path}/none is not a folder: expected CLASS/NAME.jpg or {{train,validation,test}}/CLASS/NAME.jpg "
        "with two classes or more"
    ]
