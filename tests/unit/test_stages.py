"""dvc.yaml tells the truth: a cached stage depends on every module of ours that its module imports, and on no other."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
CACHED = sorted(name for name, stage in STAGES.items() if not stage.get("always_changed"))
# Changes here cannot change what a stage makes: params.py and yaml12.py read values that DVC tracks by itself as
# params, source.py reads git, training/__init__.py switches telemetry off, and the others decide what a command says
# and how it ends.
LEFT_OUT = {
    "data/errors.py",
    "training/__init__.py",
    "training/params.py",
    *(f"training/common/{name}.py" for name in ("command", "disk", "errors", "progress", "source", "yaml12")),
}


@functools.cache
def imports(module: str) -> frozenset[str]:
    """Modules of ours that `module` imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path(module).read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return frozenset(name for name in found if path(name).is_file())


def path(module: str) -> Path:
    folder = ROOT / module.replace(".", "/")
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")


def needed(module: str) -> set[str]:
    """Files of the modules that `module` needs, itself among them; an __init__.py with a docstring alone is none."""
    seen, todo = set(), [module]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += imports(name)
    files = {path(name) for name in seen}
    return {file.relative_to(ROOT).as_posix() for file in files if len(ast.parse(file.read_text()).body) > 1}


def covers(dependency: str, file: str) -> bool:
    return file == dependency or file.startswith(f"{dependency}/")


@pytest.mark.parametrize("stage", CACHED)
def test_a_stage_depends_on_the_code_that_it_runs(stage: str) -> None:
    files = needed(STAGES[stage]["cmd"].removeprefix("python -m ")) - LEFT_OUT
    code = {dependency for dependency in STAGES[stage]["deps"] if dependency.endswith(".py") or has_code(dependency)}
    missing = sorted(file for file in files if not any(covers(dependency, file) for dependency in code))
    surplus = sorted(dependency for dependency in code if not any(covers(dependency, file) for file in files))
    assert (missing, surplus) == ([], [])


def has_code(dependency: str) -> bool:
    return any((ROOT / dependency).glob("*.py")) if (ROOT / dependency).is_dir() else False


def test_every_stage_that_is_cached_is_looked_at() -> None:
    assert CACHED == ["audit", "evaluate", "export", "prepare", "train"]
