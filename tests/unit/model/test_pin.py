from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.killing import ROOT
from training.model import pin
from training.model.pin import Champion, ChampionError, NoChampionError

SHA = "ab" * 32
PIN = Champion("cats-vs-dogs", f"cats-vs-dogs:{SHA[:16]}", "3", "r" * 32, SHA)


def test_reads_what_was_written(tmp_path: Path) -> None:
    pin.write(PIN, tmp_path / "models/champion.json")
    assert pin.read(tmp_path / "models/champion.json") == PIN
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["champion.json"]


def test_without_a_pin_it_names_the_commands_that_make_one(tmp_path: Path) -> None:
    with pytest.raises(NoChampionError, match=r"make run.*training\.registry pull"):
        pin.read(tmp_path / "champion.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", json.dumps({**vars(PIN), "run_id": None})])
def test_a_broken_pin_names_the_command_that_mends_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "champion.json").write_text(text)
    with pytest.raises(ChampionError, match=r"champion\.json.*training\.registry pull"):
        pin.read(tmp_path / "champion.json")


def test_imports_the_standard_library_alone() -> None:
    code = "import sys, training.model.pin; print([m for m in ('mlflow', 'numpy', 'bentoml') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
