"""One live server for all tests of the service that do not need one of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.service.server import Server, copy_project, make_champion
from tests.tiny import tiny_picture


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with a champion; its BentoML home is the folder `home` in it.

    One server only may use a home: another one that starts there wipes its metrics.
    """
    folder = copy_project(tmp_path_factory.mktemp("served"))
    make_champion(folder, folder / "home")
    return folder


@pytest.fixture(scope="session")
def server(project: Path) -> Iterator[Server]:
    """A server with the default settings, but for a short drain and a small limit on bytes."""
    running = Server.start(
        project, project / "home", SERVE_DRAIN="0", SERVE_MAX_BYTES="2000000", SERVE_UPLOAD_TIMEOUT="2"
    )
    yield running
    assert running.stop() == 0


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20) as client:
        yield client


@pytest.fixture(scope="session")
def cat() -> bytes:
    return tiny_picture(0, 7, noise=0.0)


@pytest.fixture(scope="session")
def dog() -> bytes:
    return tiny_picture(1, 7, noise=0.0)
