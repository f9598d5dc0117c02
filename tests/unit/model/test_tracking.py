from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from training.model import tracking
from training.model.pin import Champion, ChampionError
from training.model.server import RegistryRefusedError, RegistryUnreachableError
from training.model.tracking import RegistryChampion

SHA = "ab" * 32
PIN = Champion("cats-vs-dogs", f"cats-vs-dogs:{SHA[:16]}", "3", "r" * 32, SHA)
TABLES = """
CREATE TABLE registered_model_aliases (alias TEXT, version INTEGER, name TEXT);
CREATE TABLE model_version_tags (key TEXT, value TEXT, name TEXT, version INTEGER);
CREATE TABLE registered_model_tags (key TEXT, value TEXT, name TEXT);
"""


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tables of MLflow that are read; tests/pipeline reads those that MLflow itself made."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as tables:
        tables.executescript(TABLES)
        tables.execute("INSERT INTO registered_model_aliases VALUES ('champion', 3, 'cats-vs-dogs')")
        tables.execute("INSERT INTO model_version_tags VALUES ('model_sha256', ?, 'cats-vs-dogs', 3)", (SHA,))
        tables.commit()
    return tmp_path / "mlflow.db"


def test_agrees_with_the_registry(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert tracking.registry_champion(PIN.name, PIN.tracking_uri, database.parent) == RegistryChampion("3", SHA)
    tracking.check_against_registry(PIN, database.parent)
    assert caplog.text == ""  # a registry out of reach would be told


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("UPDATE registered_model_aliases SET version = 4", "pins version 3 .* is version 4"),
        ("UPDATE model_version_tags SET value = 'ff'", "pins version 3"),
        ("DELETE FROM registered_model_aliases", "has no champion of cats-vs-dogs"),
    ],
)
def test_a_contradiction_names_the_command_that_mends_it(database: Path, sql: str, words: str) -> None:
    with closing(sqlite3.connect(database)) as tables:
        tables.execute(sql)
        tables.commit()
    with pytest.raises(ChampionError, match=f"{words}.*training.registry pull"):
        tracking.check_against_registry(PIN, database.parent)


@pytest.mark.parametrize("uri", ["sqlite:///gone.db", "http://127.0.0.1:9", "postgresql://localhost/mlflow"])
def test_an_unreachable_registry_is_only_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with caplog.at_level(logging.WARNING):
        tracking.check_against_registry(PIN, tmp_path)
    assert "is served unchecked" in caplog.text


class Answers(BaseHTTPRequestHandler):
    """A server that answers what the test puts into `answer`."""

    answer: tuple[int, str] = (200, "")

    def do_GET(self) -> None:
        self.send_response(self.answer[0])
        self.end_headers()
        self.wfile.write(self.answer[1].encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    running = HTTPServer(("127.0.0.1", 0), Answers)
    thread = Thread(target=running.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.mark.parametrize("answer", [(500, "{}"), (404, "<html>"), (200, "<html>"), (200, "[]"), (404, "{}")])
def test_a_server_that_is_not_mlflow_counts_as_unreachable(server: str, answer: tuple[int, str]) -> None:
    Answers.answer = answer
    with pytest.raises(RegistryUnreachableError):
        tracking.registry_champion("cats-vs-dogs", f"http://{server}")


def test_a_missing_alias_is_no_champion(server: str) -> None:
    Answers.answer = (404, json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST"}))
    assert tracking.registry_champion("cats-vs-dogs", f"http://{server}") is None


@pytest.mark.parametrize("code", [401, 403])
def test_a_registry_that_does_not_let_us_in_stops_the_start(
    server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int
) -> None:
    Answers.answer = (code, "{}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{server}")
    with pytest.raises(RegistryRefusedError, match=f"{server} .*{code}"):
        tracking.check_against_registry(PIN, tmp_path)
