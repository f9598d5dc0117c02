"""The snippets of training/serving/api/README.md, as they stand there, against a live server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.server import Server
from tests.tiny import SOURCE

SECTION = re.compile(r"^## Calling the service\n(.*)", re.MULTILINE | re.DOTALL)
SNIPPET = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
RUN = {"sh": ["bash", "-eu"], "python": [sys.executable], "js": ["node", "--input-type=module"]}
NEEDS = {"sh": ["curl"], "python": [], "js": ["node"]}


def snippets() -> list[tuple[str, str]]:
    """Language and text of each."""
    section = SECTION.search((SOURCE / "training/serving/api/README.md").read_text())
    assert section is not None
    return SNIPPET.findall(section[1])


def test_there_is_one_for_each_language() -> None:
    assert [language for language, _ in snippets()] == list(RUN)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        pytest.param(language, text, id=language, marks=pytest.mark.needs(*NEEDS[language]))
        for language, text in snippets()
    ],
)
def test_a_snippet_works(server: Server, cat: bytes, tmp_path: Path, language: str, text: str) -> None:
    (tmp_path / "photo.jpg").write_bytes(cat)
    text = text.replace("http://127.0.0.1:3000", server.url)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        RUN[language], input=text, text=True, capture_output=True, cwd=tmp_path, env=environment, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "cat" in done.stdout
