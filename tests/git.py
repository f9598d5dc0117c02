"""Whether the tests run in a work tree of git: a download has none."""

from __future__ import annotations

import pytest

from tests.tiny import SOURCE
from training.source import START

HAS_GIT = (SOURCE / ".git").exists()
needs_git = pytest.mark.skipif(not HAS_GIT, reason=f"this tree has no .git: clone the project, or `{START}`")
