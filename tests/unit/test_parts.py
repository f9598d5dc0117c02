"""What a machine lacks is skipped in one way only, and the table at the end says what brings it."""

from __future__ import annotations

import ast
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests import parts
from tests.killing import environment

TESTS = parts.ROOT / "tests"
WAYS = ("skip", "skipif", "skipIf", "skipUnless", "importorskip", "SkipTest", "Skipped")
CONFTEST = """
from tests import parts
from tests.conftest import *

parts.PARTS["unicorn"] = parts.Part("unicorn", lambda: "none was seen", otherwise="wish for one")
parts.PARTS["air"] = parts.Part("air", lambda: None, otherwise="breathe")
"""
SUITE = """
import pytest

from tests import parts


@pytest.mark.needs("unicorn", "air")
@pytest.mark.parametrize("number", range(3))
def test_that_needs_one(number):
    raise AssertionError("ran without it")


@pytest.mark.needs("air")
def test_that_has_what_it_needs():
    pass


@pytest.mark.needs("air")
def test_that_learns_of_a_want_as_it_runs():
    parts.skip("air", "too thin")
"""


def other_skips(source: str) -> list[int]:
    """Lines that skip a test without naming a part."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if (isinstance(node, ast.Attribute) and node.attr in WAYS and ast.unparse(node.value) != "parts")
        or (isinstance(node, ast.ImportFrom) and {name.name for name in node.names} & set(WAYS))
    ]


@pytest.mark.parametrize(
    "line",
    [
        "pytest.skip('no reason')",
        "pytestmark = pytest.mark.skipif(True, reason='none')",
        "pytest.importorskip('torch')",
        "from pytest import skip",
        "raise unittest.SkipTest",
    ],
)
def test_a_skip_that_names_no_part_is_found(line: str) -> None:
    assert other_skips(f"import pytest\n{line}\nparts.skip('docker', 'why')\n") == [2]


def test_no_test_skips_without_naming_a_part() -> None:
    allowed = {TESTS / "parts.py", TESTS / "conftest.py"}
    found = {path: other_skips(path.read_text()) for path in TESTS.rglob("*.py") if path not in allowed}
    assert len(found) > 100
    assert {path.name: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize("system", ["Debian", "Darwin", "other"])
@pytest.mark.parametrize("name", parts.PARTS)
def test_something_brings_every_part(name: str, system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "on_debian", lambda: system == "Debian")
    monkeypatch.setattr(platform, "system", lambda: system)
    assert len(parts.PARTS[name].command) > 8


def run(folder: Path, suite: str) -> subprocess.CompletedProcess[str]:
    """A run of a small suite in another process."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_small.py").write_text(suite)
    command = [sys.executable, "-m", "pytest", "-n", "1", "-p", "no:cacheprovider", "--rootdir", str(folder), "-q"]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=60)


def test_the_table_counts_and_says_what_brings_a_part(tmp_path: Path) -> None:
    done = run(tmp_path, SUITE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed, 4 skipped" in done.stdout
    table = done.stdout.partition("skipped: missing parts")[2].splitlines()
    assert table[1:4] == [
        "part     tests  installed by",
        "unicorn      3  wish for one",
        "air          1  breathe",
    ]


def test_a_part_that_nobody_knows_is_an_error(tmp_path: Path) -> None:
    done = run(tmp_path, "import pytest\n\n\n@pytest.mark.needs('dragon')\ndef test_it():\n    pass\n")
    assert done.returncode != 0
    assert "it needs dragon, which tests/parts.py does not know" in done.stdout
