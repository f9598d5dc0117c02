"""Without the tests that need torch (`make quick`) torch is not even imported: that alone takes seconds."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

MARK = re.compile(r"^pytestmark = \[?pytest\.mark\.torch\b", re.MULTILINE)  # of a whole file


class NoTorch(MetaPathFinder):
    """Makes a test fail that needs torch and does not say so."""

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "torch":
            raise ModuleNotFoundError("tests that need torch say: pytestmark = pytest.mark.torch", name="torch")
        return None


def without_torch(config: pytest.Config) -> bool:
    return "not torch" in config.getoption("markexpr")


def pytest_configure(config: pytest.Config) -> None:
    if without_torch(config):
        sys.meta_path.insert(0, NoTorch())


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    marked = collection_path.suffix == ".py" and MARK.search(collection_path.read_text())
    return True if marked and without_torch(config) else None
