"""data/TUTORIAL.md, command by command: run here on a tiny project, or named with the test that runs it."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from data.manifest import Manifest
from tests.service.server import ROOT, Server, copy_project
from tests.tiny import tiny_picture
from training import params
from training.common.yaml12 import load

TUTORIAL = (ROOT / "data/TUTORIAL.md").read_text()
HERE, PICTURES, NEW = "http://127.0.0.1:3000", "/home/me/flowers", "/home/me/flowers-new"
ELSEWHERE = {  # what needs minutes, a network or Docker: the test that runs it, and the words it does that by
    "make install": ("tests/unit/test_install.py", '[tools / "make", "install"]'),
    "dvc repro": ("tests/pipeline/test_dvc.py", 'run("dvc", "repro")'),
    "dvc metrics diff": ("tests/pipeline/test_dvc.py", 'run("dvc", "metrics", "diff")'),
    "dvc exp run -S train.seed=7": ("tests/pipeline/test_dvc.py", 'run("dvc", "exp", "run", "-S"'),
    "python -m training.card": ("tests/pipeline/test_dvc.py", '"-m", "training.card"'),
    "make serve": ("tests/unit/test_readme.py", '["make", "--dry-run", "serve"'),
    "make image": ("tests/ops/engine.py", '"-m", "training.image"'),
    "python k8s/deploy.py --type docker": ("tests/ops/test_deploy.py", '"k8s/deploy.py"'),
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TUTORIAL, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines()]


def written(start: str) -> str:
    """The command of the tutorial that begins so."""
    [command] = [command for command in commands() if command.startswith(start)]
    return command


Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a `python -m` of the tutorial in this process and the current folder; its output."""

    def run(start: str, code: int = 0, **other: str) -> str:
        command = written(start)
        for old, new in other.items():
            assert old in command
            command = command.replace(old, new)
        python, minus_m, module, *words = shlex.split(command)
        assert (python, minus_m) == ("python", "-m")
        monkeypatch.setattr(sys, "argv", [module, *words])
        capsys.readouterr()
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            ended: object = 0
        except SystemExit as end:
            ended = end.code or 0
        assert ended == code
        return capsys.readouterr().out

    return run


def test_the_data_is_fetched_and_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """With params.yaml changed as the tutorial says, and the fewest pictures that it asks for."""
    [change] = blocks("yaml")
    settings = load((ROOT / "params.yaml").read_text())
    for section, values in yaml.safe_load(change.replace(PICTURES, str(tmp_path / "flowers"))).items():
        settings[section] |= values
    for label, name in enumerate(("rose", "tulip")):
        (tmp_path / "flowers" / name).mkdir(parents=True)
        for number in range(5):
            (tmp_path / "flowers" / name / f"IMG_{number}.png").write_bytes(tiny_picture(label, number))
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(settings))
    assert params.load().register_.name == "flowers"
    run("python -m data.fetch")
    run("python -m data.prepare")
    manifest = Manifest.read()
    assert {picture.label for picture in manifest.pictures} == {"rose", "tulip"}
    assert {picture.split for picture in manifest.pictures} == {"train", "validation", "test"}
    assert Path("data/report.html").is_file()


@pytest.mark.needs("curl")
def test_the_champion_is_asked_corrected_and_watched(two: Path, run: Run) -> None:
    copy_project(two)
    for name in ("monitoring", "data"):  # they look beside themselves for what is served
        for file in (ROOT / name).rglob("*.py"):
            target = two / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    server = Server.start(two, Path(os.environ["BENTOML_HOME"]), MLFLOW_TRACKING_URI=os.environ["MLFLOW_TRACKING_URI"])
    try:
        ask_correct_and_watch(two, server.url, run)
    finally:
        assert server.stop() == 0


def ask_correct_and_watch(project: Path, url: str, run: Run) -> None:
    (project / "photo.jpg").write_bytes(tiny_picture(0, 7))
    shell("curl -F image", url)
    answer = json.loads((project / "answer.json").read_text())
    assert answer["model"]["version"] == "2"
    assert answer["model"]["git_commit"] in run("python -m training.registry trace")
    shell("curl http://127.0.0.1:3000/feedback", url, ID=answer["request_id"], tulip="dog")
    assert "version 2: accuracy" in run("python -m monitoring.feedback")
    for label, name in enumerate(("cat", "dog")):
        (project / "new" / name).mkdir(parents=True)
        for number in range(5):
            (project / "new" / name / f"{number}.png").write_bytes(tiny_picture(label, 900 + number))
    judged = written("python -m monitoring.performance").replace(NEW, "new").replace(HERE, url)
    assert "10 pictures, 0 refused" in shell_output(judged)
    checked = written("python -m monitoring.drift")
    assert "too few to tell" in shell_output(f"{checked} || (($? == 4))")


def shell(start: str, url: str, **other: str) -> None:
    command = written(start)
    for old, new in {HERE: url, **other}.items():
        command = command.replace(old, new)
    subprocess.run(["bash", "-ec", command.replace("curl ", "curl -fsS ", 1)], check=True, timeout=60)


def test_the_registry_answers_and_goes_back(two: Path, run: Run) -> None:
    assert "registry, pin and BentoML store agree" in run("python -m training.registry status")
    assert "McNemar p" in run("python -m training.registry compare")
    assert "version 1" in run("python -m training.registry rollback")


def test_git_and_the_environment(two: Path) -> None:
    activate = Path(sys.executable).parent / "activate"
    found = shell_output(written("source").replace(".venv/bin/activate", str(activate)) + "; command -v python")
    assert Path(found).parent.samefile(activate.parent)
    names = {f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    (two / "params.yaml").write_text((two / "params.yaml").read_text() + "# mine\n")
    (two / "dvc.lock").write_text("schema: '2.0'\n")
    for start in ("git add params.yaml", 'git commit -m "Train', "git add -A", 'git commit -m "First'):
        shell_output(written(start), **names)
    assert shell_output("git log -2 --format=%s").splitlines() == ["First champion", "Train on my flowers"]


def shell_output(command: str, **variables: str) -> str:
    environment = os.environ | variables | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-ec", command], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_what_is_not_run_here_is_run_elsewhere() -> None:
    for command, (file, words) in ELSEWHERE.items():
        assert command in commands(), command
        assert words in (ROOT / file).read_text(), command


def test_no_command_is_left_out() -> None:
    here = tuple(re.findall(r"""(?:run|written|shell)\(["']([^"']+)["']""", Path(__file__).read_text()))
    here += ("git add", "git commit")
    left = [command for command in commands() if command not in ELSEWHERE and not command.startswith(here)]
    assert left == []
