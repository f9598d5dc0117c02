"""`python -m training`: every command of the project, by what its own module says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from monitoring import drift, feedback
from training import __main__ as commands
from training.registry import __main__ as registry

ROOT = Path(__file__).parent.parent.parent
INTERNAL = {"training/common/port.py"}  # the Makefile calls it
LONGEST = 100  # characters of a line that says what a command does


def listed() -> list[str]:
    return [name for names in commands.GROUPS.values() for name in names]


def test_every_module_that_parses_options_is_listed_once() -> None:
    folders = ("data", "k8s", "monitoring", "training")
    parsing = {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if "argparse.ArgumentParser(" in path.read_text()
    }
    found = [commands.source(name).relative_to(ROOT).as_posix() for name in listed()]
    assert len(found) == len(set(found))
    assert {path for path in found if path.split("/")[0] in folders} == parsing - INTERNAL - {"training/__main__.py"}


@pytest.mark.parametrize("name", listed())
def test_a_command_is_told_in_one_line(name: str) -> None:
    assert 20 < len(commands.summary(name)) <= LONGEST
    assert not commands.summary(name).endswith((".", ",", ":"))


@pytest.mark.parametrize("module", [registry, drift, feedback])
def test_the_line_names_every_subcommand(module: object) -> None:
    usage = module.parser().format_help()  # type: ignore[attr-defined]
    names = re.findall(r"^    (?!python)([a-z]+) ", usage, re.MULTILINE)
    assert len(names) >= 2
    [name] = [name for name in listed() if str(commands.source(name)) == module.__file__]  # type: ignore[attr-defined]
    assert set(names) <= set(re.findall(r"\w+", commands.summary(name)))


def test_nothing_heavy_is_imported_for_it() -> None:
    code = "import runpy, sys; runpy.run_module('training', run_name='again').get('main')(['--json']); "
    code += "sys.exit(bool({'torch', 'mlflow', 'numpy', 'yaml'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == len(commands.GROUPS)
    assert "python k8s/deploy.py" in found["Serve and ship"]


def test_the_help_is_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        commands.main(["--help"])
    text = capsys.readouterr().out
    for name in listed():
        assert re.search(
            rf"^  python (-m )?{re.escape(name)} +{re.escape(commands.summary(name))}$", text, re.MULTILINE
        )
