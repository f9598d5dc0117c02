"""The machine of `make test-bare` has none of what it is there to do without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.parts import ROOT, photographs

ABSENT = ("docker", "promtool", "amtool", "prometheus", "chromium", "java", "kubectl", "node", "curl", "cc", "uv")
SCRIPT = f"""
for name in {" ".join(ABSENT)}; do ! command -v $name || exit 1; done
! ls ../shared 2> /dev/null || exit 2
! mkdir -p "$HOME" 2> /dev/null || exit 3
! git commit --quiet --allow-empty --message x 2> /dev/null || exit 4
[ -z "$(make --silent install 2>&1)" ] || exit 5
.venv/bin/python -c 'import pytest' || exit 6
env | cut -d = -f 1 | sort
exit 7
"""


def test_a_bare_machine_has_no_part_no_home_no_author_and_no_neighbours(tmp_path: Path) -> None:
    given = os.environ | {"TMPDIR": str(tmp_path), "PHOTOS": str(photographs() or ""), "GIT_AUTHOR_NAME": "ada"}
    command = [sys.executable, "-m", "tests.bare", "bash", "-c", SCRIPT]
    done = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == 7, done.stdout + done.stderr  # that of the command
    names = {name for name in done.stdout.split() if not name.startswith("GIT_CONFIG_")}
    assert names - {"_", "PWD", "SHLVL", "OLDPWD"} == {"PATH", "HOME", "TMPDIR", "TERM"}
    assert not list(tmp_path.iterdir())
