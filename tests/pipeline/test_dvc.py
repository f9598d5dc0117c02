"""The whole pipeline as DVC runs it: three classes from a folder, real pictures, real stores, a real service.

One project goes through its life in the order of the tests: first run, second run, lost files, remote, experiment.
Its desk is an odd one: a path with a space, an umlaut and a sign of the shell, below a symbolic link; no home folder;
the plainest locale; files for nobody else.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.drawing import drawing, encoded
from tests.service.server import Server

ROOT = Path(__file__).parent.parent.parent
PER_CLASS = 60
CAT, DOG, DRAWING = CLASSES = ("a & b (c)", "label", "US$ / A$")  # whatever else a sign means somewhere on the way
FOLDER = "drawing_1"  # of DRAWING, by data.rename
PARTS = ("data", "training", "service.py", "bentofile.yaml", "dvc.yaml", ".dvcignore", ".gitignore")
MADE = shutil.ignore_patterns(
    "__pycache__",
    "raw",
    "processed",
    "manifest.csv",
    "report.json",
    "report.html",
    "audit.json",
    "audit.html",
    ".fetch",
    ".prepare",
)
ODD = {"HOME": "/proc/nowhere", "LANG": "C", "LC_ALL": "POSIX"}  # such a home cannot be made, even by root
# Bytecode is written, as on most machines: folders that DVC watches must not change by it.
NOT_KEPT = ("MLFLOW", "BENTOML", "LANG", "LC_", "XDG_", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONDONTWRITEBYTECODE")


@dataclass(frozen=True)
class Project:
    """A copy of this project with stores of its own."""

    folder: Path
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_KEPT)}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return kept | ODD | {"BENTOML_HOME": str(self.home), "BENTOML_DO_NOT_TRACK": "true", "PATH": path}

    def run(self, *command: str, folder: Path | None = None) -> str:
        """Run a command in the project; its output. The test fails with that output when the command does, and when
        it draws bars, for which a log has no use (MLflow's own command does, and is not ours)."""
        done = subprocess.run(
            command,
            cwd=folder or self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=240,
            umask=0o077,
        )
        output = done.stdout.decode()
        assert done.returncode == 0, f"{' '.join(command)}\n{output}"
        assert command[0] == "mlflow" or "\r" not in output
        return output

    def git(self, *command: str, folder: Path | None = None) -> str:
        return self.run("git", "-c", "user.name=test", "-c", "user.email=test@example.org", *command, folder=folder)

    def versions(self) -> list[dict[str, Any]]:
        """Registered versions, read by MLflow's own client in a process of its own."""
        code = (
            "import json, mlflow; c = mlflow.MlflowClient('sqlite:///mlflow.db');"
            "found = [c.get_model_version('pets', v.version) for v in c.search_model_versions(\"name = 'pets'\")];"
            "print(json.dumps([{'version': int(v.version), 'run_id': v.run_id, 'aliases': v.aliases, 'tags': v.tags}"
            " for v in found]))"
        )
        found: list[dict[str, Any]] = json.loads(self.run(sys.executable, "-c", code).splitlines()[-1])
        return found


def write_pictures(folder: Path) -> None:
    """Cats and dogs from the embedded sample, and drawings as a third class."""
    with zipfile.ZipFile(ROOT / "data/sample/cats-and-dogs.zip") as sample:
        for label, name in (("cat", CAT), ("dog", DOG)):
            members = sorted(member for member in sample.namelist() if member.startswith(f"{label}/"))[:PER_CLASS]
            sample.extractall(folder, members)
            (folder / label).rename(folder / name)
    (folder / FOLDER).mkdir()
    for number in range(PER_CLASS):
        (folder / FOLDER / f"{number}.png").write_bytes(encoded(drawing(number)))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    real = tmp_path_factory.mktemp("life") / "my pröject & co"
    real.mkdir()
    root = real.parent / "link"
    root.symlink_to(real)
    folder = root / "project"
    folder.mkdir()
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=MADE)
        else:
            shutil.copy(source, folder / name)
    write_pictures(root / "pictures")
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    settings["data"] |= {"source": "folder", "path": str(root / "pictures"), "rename": {FOLDER: DRAWING}}
    settings["train"] |= {"architecture": "cnn", "image_size": 32, "epochs": 8, "batch_size": 16}
    settings["register"]["name"] = "pets"
    settings["promote"] |= {"min_accuracy": 0.3, "min_class_accuracy": 0.0, "min_slice_accuracy": 0.0}
    settings["promote"] |= {
        "max_calibration_error": 0.5,
        "min_invariance": 0.0,
        "max_confidence_gain": 1.0,
        "min_named": 0.0,
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(settings))
    made = Project(folder, root / "bentoml")
    made.git("init", "-q", "-b", "main")
    for key, value in (("user.name", "test"), ("user.email", "test@example.org")):
        made.git("config", key, value)  # DVC commits experiments with it
    made.run("dvc", "init", "-q")
    made.run("dvc", "config", "core.analytics", "false")
    made.git("add", ".")
    made.git("commit", "-q", "-m", "start")
    return made


def test_first_run_registers_and_promotes(project: Project) -> None:
    output = project.run("dvc", "repro")
    assert "is the champion" in output
    (version,) = project.versions()
    assert version["aliases"] == ["champion"]
    manifest = (project.folder / "data/manifest.csv").read_text().splitlines()
    assert {line.split(",")[1] for line in manifest[1:]} == set(CLASSES)
    project.git("add", ".")
    project.git("commit", "-q", "-m", "first champion")


def test_three_classes_are_served(project: Project) -> None:
    server = Server.start(project.folder, project.home, **ODD)
    try:
        answer = httpx.post(f"{server.url}/predict?abstain=false", files={"image": encoded(drawing(999))}, timeout=20)
    finally:
        assert server.stop() == 0
    assert answer.status_code == 200, answer.text
    assert set(answer.json()["probabilities"]) == set(CLASSES)
    assert answer.json()["label"] == DRAWING
    assert answer.json()["model"]["run_id"] == project.versions()[0]["run_id"]


def test_served_probabilities_are_those_of_evaluation(project: Project) -> None:
    header, *rows = (project.folder / "models/predictions.csv").read_text().splitlines()
    classes = sorted(CLASSES)
    assert header.split(",")[4:] == [DRAWING, CAT, f"probability of {DOG}"]
    server = Server.start(project.folder, project.home, **ODD)
    try:
        with httpx.Client(base_url=server.url, timeout=20) as client:
            for row in rows:
                path, _, _, _, *values = row.split(",")
                data = (project.folder / "data/processed" / path).read_bytes()
                found = client.post("/predict?abstain=false", files={"image": data}).json()["probabilities"]
                assert [found[name] for name in classes] == pytest.approx([float(value) for value in values], abs=1e-4)
    finally:
        assert server.stop() == 0


def test_second_run_changes_nothing(project: Project) -> None:
    output = project.run("dvc", "repro")
    for stage in ("prepare", "train", "evaluate", "export"):
        assert f"Stage '{stage}' didn't change, skipping" in output
    assert "is registered already" in output
    assert "is already the champion" in output
    assert len(project.versions()) == 1
    assert project.run(sys.executable, "-m", "training.card").startswith("# ")


def test_a_restored_stage_still_reaches_the_registry(project: Project) -> None:
    """Stores and models lost: DVC restores the files without running the stages, and the model is registered again."""
    shutil.rmtree(project.folder / "models")
    shutil.rmtree(project.home)
    (project.folder / "mlflow.db").unlink()
    output = project.run("dvc", "repro")
    assert "python -m training.train" not in output
    (version,) = project.versions()
    assert version["aliases"] == ["champion"]
    assert version["tags"]["bento_tag"] in project.run(sys.executable, "-m", "training.registry", "status")


def test_pictures_and_models_travel_through_a_remote(project: Project) -> None:
    before = (project.folder / "data/manifest.csv").read_bytes()
    project.run("dvc", "remote", "add", "-d", "store", str(project.folder.parent / "remote"))
    project.run("dvc", "push", "-q")
    for name in (".dvc/cache", "data/processed", "data/raw", "models/model"):
        shutil.rmtree(project.folder / name)
    (project.folder / "data/manifest.csv").unlink()
    project.run("dvc", "pull", "-q")
    assert (project.folder / "data/manifest.csv").read_bytes() == before
    assert len(list((project.folder / "data/processed").rglob("*.png"))) == 3 * PER_CLASS
    assert (project.folder / "models/model/model.onnx").is_file()


@contextmanager
def plain_path(project: Project) -> Iterator[None]:
    """DVC 3.67 writes the path of its cache into the copy's configuration, in ASCII alone."""
    link = project.folder.parent
    odd = link.resolve()
    plain = odd.with_name("plain")
    repoint(link, odd.rename(plain))
    try:
        yield
    finally:
        repoint(link, plain.rename(odd))


def repoint(link: Path, target: Path) -> None:
    link.unlink()
    link.symlink_to(target)


def test_an_experiment_in_a_temporary_copy_registers_nothing(project: Project) -> None:
    before = project.versions()
    with plain_path(project):
        output = project.run("dvc", "exp", "run", "--temp", "--name", "short", "-S", "train.epochs=1")
    for step in ("registered", "promoted"):
        assert f"nothing is {step} from a temporary copy of the project: `dvc exp apply short`" in output
    assert "champion" not in output
    assert project.versions() == before
    shown = json.loads(project.run("dvc", "exp", "show", "--json"))
    (found,) = (one for baseline in shown for group in baseline["experiments"] or () for one in group["revs"])
    accuracy = found["data"]["metrics"]["model_performance.json"]["data"]["accuracy"]
    assert accuracy < json.loads((project.folder / "model_performance.json").read_text())["accuracy"]


def test_an_experiment_shows_its_difference(project: Project) -> None:
    output = project.run("dvc", "exp", "run", "-S", "train.epochs=1")
    assert "kept the champion" in output
    difference = project.run("dvc", "metrics", "diff")
    assert re.search(r"model_performance\.json +accuracy +[0-9.]+ +[0-9.]+ +-[0-9.]+", difference)
    assert "train.epochs" in project.run("dvc", "params", "diff")
    page = project.run("dvc", "plots", "show", "--out", "plots")
    assert "index.html" in page
    assert (project.folder / "plots/index.html").stat().st_size > 1000
    first, second = sorted(project.versions(), key=lambda version: version["version"])
    assert first["aliases"] == ["champion"]
    assert second["aliases"] == ["challenger"]


def test_an_unknown_parameter_stops_the_pipeline_by_name(project: Project) -> None:
    params = project.folder / "params.yaml"
    before = params.read_text()
    params.write_text(before.replace("epochs:", "epoch:", 1))
    try:
        done = subprocess.run(
            ["dvc", "repro"], cwd=project.folder, env=project.environment, capture_output=True, text=True, check=False
        )
    finally:
        params.write_text(before)
    assert done.returncode != 0
    assert "unknown key 'train.epoch', nearest valid key: 'train.epochs'" in done.stdout + done.stderr


def test_an_answer_leads_back_to_its_metrics(project: Project) -> None:
    """A clone, the commit, the data and the parameters that the registry names: training gives the same metrics."""
    champion = next(version for version in project.versions() if "champion" in version["aliases"])
    clone = project.folder.parent / "clone"
    project.git("clone", "-q", str(project.folder), str(clone))
    project.git("checkout", "-q", champion["tags"]["git_commit"], folder=clone)
    mlflow = ("mlflow", "artifacts", "download", "--run-id", champion["run_id"], "--artifact-path", "lineage")
    project.run(*mlflow, "--dst-path", str(clone / "restored"))
    for name in ("dvc.lock", "params.yaml"):
        shutil.copy(next((clone / "restored").rglob(name)), clone / name)
    project.run("dvc", "remote", "add", "-f", "-d", "store", str(project.folder.parent / "remote"), folder=clone)
    project.run("dvc", "pull", "-q", "prepare", folder=clone)
    project.run("dvc", "repro", "--force", "--single-item", "train", "evaluate", folder=clone)
    again = json.loads((clone / "model_performance.json").read_text())
    recorded = json.loads(project.git("show", "main:model_performance.json"))
    assert again == recorded
