"""A project that was moved, copied or mounted elsewhere: its MLflow database follows.

    python -m training.registry.moved      mends the database that MLFLOW_TRACKING_URI names (default: mlflow.db)

MLflow writes down where artifacts lie as absolute paths, so a moved project would go on writing to its former folder.
Every command that opens the registry asks this module first. Only the standard library is imported.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import sys
import urllib.parse
from contextlib import closing
from pathlib import Path

from training.common.command import run_command
from training.common.errors import ExpectedError
from training.model.pin import DEFAULT_TRACKING_URI
from training.model.tracking import SQLITE

ARTIFACTS = "mlruns"  # MLflow's folder of artifacts beside a database
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)
TIMEOUT_S = 20.0


class MovedError(ExpectedError):
    """The project lies where its database cannot follow."""


def _check_path() -> None:
    """MovedError where MLflow would write into another folder: it reads %20 in a path as a space."""
    here = os.getcwd()  # noqa: PTH109 - as MLflow takes it
    read = urllib.parse.unquote(here)
    if read != here:
        raise MovedError(f"MLflow takes the path {here} for {read}: rename the folder so that it has no % in it")


def follow(uri: str) -> list[str]:
    """Let the SQLite database at `uri` name the artifacts beside it, in one transaction; the former folders.

    A folder `mlruns` that it names is taken for a former one if files of its runs lie beside the database, or if it
    has no run and is gone. MovedError when the database cannot be written.
    """
    database = Path(uri.removeprefix(SQLITE))
    beside = database.resolve().parent / ARTIFACTS
    if not (uri.startswith(SQLITE) and database.is_file() and beside.is_dir()):
        return []
    try:
        with closing(sqlite3.connect(database, timeout=TIMEOUT_S, isolation_level=None)) as connection:
            former = [folder for folder in _named(connection) if _is_former(connection, folder, beside)]
            if former:
                _rewrite(connection, former, str(beside))
            return former
    except sqlite3.Error as error:
        raise MovedError(f"{database} belongs to a project that was moved, and cannot be mended: {error}") from None


def _named(connection: sqlite3.Connection) -> list[str]:
    """The folders of artifacts that the database names: those of its experiments, without the last part."""
    if not _columns(connection, "experiments"):
        return []
    rows = connection.execute("SELECT artifact_location, '/' || experiment_id FROM experiments ORDER BY experiment_id")
    named = [location.removesuffix(end) for location, end in rows if location and location.endswith(end)]
    return [folder for folder in dict.fromkeys(named) if folder.endswith(f"/{ARTIFACTS}")]


def _is_former(connection: sqlite3.Connection, folder: str, beside: Path) -> bool:
    path = Path(folder.removeprefix("file://"))
    if path.is_dir() and path.samefile(beside):
        return False
    found = [uri for (uri,) in connection.execute("SELECT artifact_uri FROM runs") if uri.startswith(f"{folder}/")]
    return any((beside / uri[len(folder) + 1 :]).is_dir() for uri in found) if found else not path.exists()


def _rewrite(connection: sqlite3.Connection, former: list[str], now: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    places = [(table, column) for table, column in LOCATIONS if column in _columns(connection, table)]
    for (table, column), folder in itertools.product(places, former):
        connection.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
            (now, len(folder) + 1, len(folder) + 1, f"{folder}/"),
        )
    connection.execute("COMMIT")


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def tell(uri: str) -> None:
    """`follow`, and a line on stderr when something was mended; MovedError as `check_path` too."""
    if uri.startswith(SQLITE):
        _check_path()
    if former := follow(uri):
        where = ", ".join(former)
        print(
            f"this project was moved: {uri} now points to its own artifacts, not to those in {where}", file=sys.stderr
        )


if __name__ == "__main__":
    run_command(lambda: tell(os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING_URI))
