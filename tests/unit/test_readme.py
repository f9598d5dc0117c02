"""What the READMEs name exists: links, modules, make targets, registry commands, keys of params.yaml."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

from training import registry

ROOT = Path(__file__).parent.parent.parent
READMES = [ROOT / "README.md", *sorted(ROOT.glob("*/README.md")), *sorted(ROOT.glob("*/*/README.md"))]
PAGES = [path for path in READMES if ".venv" not in path.parts]


@pytest.fixture(params=PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def page(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_commands_exist(page: Path) -> None:
    text = page.read_text()
    for module in set(re.findall(r"python -m ((?:data|training)[\w.]*)", text)):
        assert importlib.util.find_spec(module), module
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)", text)) <= targets


def test_registry_commands_exist(page: Path) -> None:
    usage = registry.parser().format_help()
    for command in set(re.findall(r"training\.registry ([a-z]+)", page.read_text())):
        assert re.search(rf"^ +{command} ", usage, re.MULTILINE), command


def test_keys_of_params_exist(page: Path) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, key in re.findall(r"`(data|prepare|train|evaluate|export|register|promote)\.(\w+)", page.read_text()):
        assert key in params[section] or (ROOT / section / f"{key}.py").exists(), f"{section}.{key}"
