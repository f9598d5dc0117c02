"""Where a prediction stands in the request log, and what was said of it, without reading the log whole.

An SQLite file beside the log: what follows from the files there, and may be deleted at any time. Each host has its
own, because replicas may share the folder over a network, where SQLite's locks are not to be relied on. It is brought
up to date a little at a time; whoever looks something up searches for himself what it has not reached yet. So nobody
waits for it, also when it begins anew beside a long log.
"""

from __future__ import annotations

import errno
import functools
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from training.serving.records.log_files import FEEDBACK_FILE, HOST, QUIET_S, Lines, identity, request_files

FORM = 1  # of the tables; another one is another file
STEP = 1 << 18  # bytes of log that are taken in at once
LONGEST = 1 << 20  # of a line; what is longer is none of ours
BUSY_S = 5.0  # that one writer waits for another
SEARCHED = 1 << 22  # bytes that are searched at once
VERSIONS = 20  # of which live accuracy is told, those that were judged last
PREDICTION = ("predicted", "name", "version", "model_sha256", "captured")
SCHEMA = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS file (number INTEGER PRIMARY KEY, identity BLOB UNIQUE, read INTEGER, replaced INTEGER);
    CREATE TABLE IF NOT EXISTS prediction (
        file INTEGER, id TEXT, picture TEXT, time REAL, predicted TEXT, name TEXT, version TEXT, model_sha256 TEXT,
        captured TEXT, PRIMARY KEY (file, id)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS said (
        id TEXT PRIMARY KEY, label TEXT, version TEXT, predicted TEXT, changes INTEGER
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS accuracy (version TEXT PRIMARY KEY, correct INTEGER, pictures INTEGER, time REAL);
"""
LEARN = """
    INSERT INTO prediction VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
        predicted = CASE WHEN picture = excluded.picture AND predicted NOTNULL THEN excluded.predicted END,
        time = excluded.time, name = excluded.name, version = excluded.version, model_sha256 = excluded.model_sha256,
        captured = coalesce(excluded.captured, captured)
"""
FIND = """
    SELECT predicted, name, version, model_sha256, captured, picture, time
    FROM file CROSS JOIN prediction ON prediction.file = file.number WHERE id = ?
"""
SAY = """
    INSERT INTO said VALUES (?, ?, ?, ?, 1) ON CONFLICT DO UPDATE SET
        label = excluded.label, version = excluded.version, predicted = excluded.predicted, changes = changes + 1
"""
COUNT = """
    INSERT INTO accuracy VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET
        correct = correct + excluded.correct, pictures = pictures + excluded.pictures, time = excluded.time
"""

_Take = Callable[[sqlite3.Connection, int, int, list[bytes]], None]


class Prediction(NamedTuple):
    """What feedback needs to know of a prediction."""

    predicted: str
    name: str
    version: str
    model_sha256: str
    captured: str | None


class Known(NamedTuple):
    """What was predicted under one request id: the latest of one picture; `made` is None when there were several."""

    made: Prediction | None
    picture: str  # the start of its SHA-256
    time: float

    def with_another(self, other: Known) -> Known:
        """What is known when both were made under the id."""
        if self.made is None or other.made is None or self.picture != other.picture:
            return SEVERAL
        former, latest = (self, other) if self.time <= other.time else (other, self)
        assert former.made is not None
        assert latest.made is not None
        captured = latest.made.captured or former.made.captured
        return latest._replace(made=latest.made._replace(captured=captured))


SEVERAL = Known(None, "", 0.0)


class Said(NamedTuple):
    """What was said last of a prediction, and how often something was."""

    label: str
    version: str
    predicted: str
    changes: int


class Index:
    """The index of the log in `folder`. Thread-safe, and right with several processes. Its errors are OSErrors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / f"index-{FORM}-{HOST}.sqlite3"
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._connections: dict[threading.Lock, sqlite3.Connection] = {}
        self._predictions = Lines("request_id", "time", "picture_sha256", *PREDICTION[:-1])
        self._feedback = Lines("request_id", "label", "version", "predicted")

    def prediction(self, request_id: str) -> tuple[Known | None, list[OSError]]:
        """What was predicted under this id, and what kept files from being looked into."""
        with self._read() as database:
            read = _positions(database)
            found = [_known(*row) for row in database.execute(FIND, (request_id,))]
        errors = []
        for path in request_files(self.folder):
            try:
                found += [_of_log(each) for each in _search(path, read, request_id, self._predictions)]
            except FileNotFoundError:  # renamed or deleted meanwhile
                continue
            except OSError as error:
                errors.append(OSError(error.errno, error.strerror, str(path)))
        return functools.reduce(Known.with_another, found) if found else None, errors

    def said(self, request_id: str) -> Said | None:
        """What was said last under this id. OSError when the file of feedback cannot be read."""
        with self._read() as database:
            read = _positions(database)
            rows = database.execute("SELECT label, version, predicted, changes FROM said WHERE id = ?", (request_id,))
            last = next((Said(*row) for row in rows), None)
        with suppress(FileNotFoundError):
            for record in _search(self.folder / FEEDBACK_FILE, read, request_id, self._feedback):
                changes = last.changes + 1 if last else 1
                last = Said(record["label"], record["version"], record["predicted"], changes)
        return last

    def accuracy(self) -> dict[str, tuple[int, int]]:
        """By version: how many predictions were right, of how many with feedback; of those judged last."""
        query = "SELECT version, correct, pictures FROM accuracy WHERE pictures > 0 ORDER BY time DESC LIMIT ?"
        with self._read() as database:
            return {version: (correct, pictures) for version, correct, pictures in database.execute(query, (VERSIONS,))}

    def replaced(self) -> tuple[int, int]:
        """Lines of the file of feedback that later ones replaced, and those that stand."""
        with self._read() as database:
            [found] = database.execute("SELECT (SELECT sum(replaced) FROM file), (SELECT sum(pictures) FROM accuracy)")
        return found[0] or 0, found[1] or 0

    def follow_feedback(self, wait: bool = True) -> bool:
        """Take in a little of what is new in the file of feedback; whether there was any. Without `wait` only if nobody
        else writes to the index. OSError when that file cannot be read."""
        return self._follow(self.folder / FEEDBACK_FILE, self._say, wait)

    def follow(self) -> bool:
        """Take in a little of what is new in one of the files; if there is nothing, forget those that are gone.
        Whether there was any."""
        return self.folder.is_dir() and (
            self.follow_feedback()
            or any(self._follow(path, self._learn) for path in request_files(self.folder))
            or self._forget()
        )

    def compacted(self, file: BinaryIO) -> None:
        """This file, of which everything is known, takes the place of the file of feedback."""
        with self._write() as database:
            database.execute("UPDATE file SET replaced = 0")
            row = (identity(file), file.seek(0, os.SEEK_END))
            database.execute("INSERT INTO file VALUES (NULL, ?, ?, 0)", row)

    def clean(self) -> None:
        """Delete the indexes that other hosts and versions left a week ago."""
        for path in self.folder.glob("index-*.sqlite3*"):
            with suppress(OSError):
                if not path.name.startswith(self.path.name) and path.stat().st_mtime < time.time() - QUIET_S:
                    path.unlink()

    def close(self) -> None:
        """Close its file."""
        with self._writing, self._reading:
            while self._connections:
                self._connections.popitem()[1].close()

    def _follow(self, path: Path, take: _Take, wait: bool = True) -> bool:
        try:
            with path.open("rb") as file:
                if self._read_so_far().get(identity(file), 0) == file.seek(0, os.SEEK_END):
                    return False
                with self._write(wait) as database:
                    return self._take_in(database, file, take)
        except (FileNotFoundError, NotADirectoryError, _BusyError):
            return False
        except OSError:
            if path.name == FEEDBACK_FILE:
                raise
            return False  # whoever looks for what stands there is told

    def _take_in(self, database: sqlite3.Connection, file: BinaryIO, take: _Take) -> bool:
        known_by = identity(file)
        database.execute("INSERT OR IGNORE INTO file VALUES (NULL, ?, 0, 0)", (known_by,))
        query = "SELECT number, read FROM file WHERE identity = ?"
        [(number, begin)] = database.execute(query, (known_by,))
        file.seek(begin)
        lines, end = [], begin
        while end - begin < STEP:
            line = file.readline(LONGEST)
            if not line.endswith(b"\n") and len(line) < LONGEST:
                break
            lines.append(line)
            end += len(line)
        take(database, number, begin, lines)
        database.execute("UPDATE file SET read = ? WHERE number = ?", (end, number))
        return bool(end > begin)

    def _learn(self, database: sqlite3.Connection, number: int, _begin: int, lines: list[bytes]) -> None:
        """Know the predictions in lines of a file."""
        rows = []
        for record in filter(None, map(self._predictions.record, lines)):
            known = _of_log(record)
            assert known.made is not None
            rows.append((number, record["request_id"], known.picture, known.time, *known.made))
        database.executemany(LEARN, rows)

    def _say(self, database: sqlite3.Connection, number: int, begin: int, lines: list[bytes]) -> None:
        """Count what lines of the file of feedback say. What a former file said does not count any more."""
        if begin == 0:
            database.execute("DELETE FROM said")
            database.execute("DELETE FROM accuracy")
        for record in filter(None, map(self._feedback.record, lines)):
            query = "SELECT label, version, predicted FROM said WHERE id = ?"
            former = database.execute(query, (record["request_id"],)).fetchone()
            if former:  # it may be of another version: an id that was sent again
                _count(database, -1, *former)
                database.execute("UPDATE file SET replaced = replaced + 1 WHERE number = ?", (number,))
            now = (record["label"], record["version"], record["predicted"])
            _count(database, 1, *now)
            database.execute(SAY, (record["request_id"], *now))

    def _forget(self) -> bool:
        """Forget the files that are gone."""
        there = set()
        for path in [*request_files(self.folder), self.folder / FEEDBACK_FILE]:
            with suppress(OSError), path.open("rb") as file:
                there.add(identity(file))
        gone = [(known_by,) for known_by in self._read_so_far() if known_by not in there]
        if gone:
            with self._write() as database:
                query = "DELETE FROM prediction WHERE file = (SELECT number FROM file WHERE identity = ?)"
                database.executemany(query, gone)
                database.executemany("DELETE FROM file WHERE identity = ?", gone)
                if not (self.folder / FEEDBACK_FILE).exists():
                    database.execute("DELETE FROM said")
                    database.execute("DELETE FROM accuracy")
        return False

    def _read_so_far(self) -> dict[bytes, int]:
        with self._read() as database:
            return _positions(database)

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        """What is read within is of one moment; it waits for no writer."""
        with self._reading, self._told(), self._database(self._reading) as database:
            database.execute("BEGIN")
            yield database

    @contextmanager
    def _write(self, wait: bool = True) -> Iterator[sqlite3.Connection]:
        """What is written within is written wholly or not at all. _BusyError when another writes and `wait` is not."""
        if not self._writing.acquire(blocking=wait):
            raise _BusyError
        try:
            with self._told(), self._database(self._writing) as database:
                database.execute(f"PRAGMA busy_timeout = {BUSY_S * 1000 * wait:.0f}")
                database.execute("BEGIN IMMEDIATE")
                yield database
        finally:
            self._writing.release()

    def _database(self, lock: threading.Lock) -> sqlite3.Connection:
        if lock not in self._connections:
            database = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            database.executescript(SCHEMA)
            self._connections[lock] = database
        return self._connections[lock]

    @contextmanager
    def _told(self) -> Iterator[None]:
        """SQLite's errors become OSErrors; a damaged file is deleted, the next one begins anew."""
        try:
            yield
        except sqlite3.Error as error:
            kind = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise _BusyError(errno.EBUSY, f"{self.path}: {error}") from None
            if kind in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                self._connections = {}  # whoever is at work goes on with the file that has no name any more
                for suffix in ("", "-wal", "-shm"):
                    Path(f"{self.path}{suffix}").unlink(missing_ok=True)
            raise OSError(errno.EIO, f"{self.path}: {error}") from None


class _BusyError(OSError):
    """Another writes to the index."""


def _positions(database: sqlite3.Connection) -> dict[bytes, int]:
    """By the identity of a file, how far it is taken in."""
    return dict(database.execute("SELECT identity, read FROM file"))


def _search(path: Path, read: dict[bytes, int], request_id: str, kind: Lines) -> Iterator[dict[str, Any]]:
    """The records under this id behind what was `read` of a file."""
    needle = orjson.dumps(request_id)
    with path.open("rb") as file:
        begin = read.get(identity(file), 0)
        for at in _places(file.fileno(), begin, needle):
            line = _line(file, begin, at)
            record = kind.record(line) if line.endswith(b"\n") else None
            if record is not None and record["request_id"] == request_id:
                yield record


def _places(file: int, begin: int, needle: bytes) -> Iterator[int]:
    """Where the needle stands. A gigabyte takes half a second where memory holds the file: nothing is copied, and there
    are few calls after which the thread waits its turn."""
    buffer = bytearray(SEARCHED)
    while (size := os.preadv(file, [buffer], begin)) >= len(needle):
        at = buffer.find(needle, 0, size)
        while at >= 0:
            yield begin + at
            at = buffer.find(needle, at + 1, size)
        begin += size - len(needle) + 1  # it may stand astride


def _line(file: BinaryIO, begin: int, at: int) -> bytes:
    """The line around a place."""
    start = max(begin, at - LONGEST)
    file.seek(start)
    before = file.read(at - start)
    file.seek(start + before.rfind(b"\n") + 1)
    return file.readline(2 * LONGEST)


def _known(*row: Any) -> Known:
    *made, picture, when = row
    return Known(Prediction(*made) if made[0] is not None else None, picture, when)


def _of_log(record: dict[str, Any]) -> Known:
    made = Prediction(*[record.get(name) for name in PREDICTION])  # type: ignore[arg-type]  # Lines has looked
    return Known(made, record["picture_sha256"][:16], record["time"].timestamp())


def _count(database: sqlite3.Connection, number: int, label: str, version: str, predicted: str) -> None:
    database.execute(COUNT, (version, number * (label == predicted), number, time.time()))
