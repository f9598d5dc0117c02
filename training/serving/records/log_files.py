"""The files of the request log and how they are read: whole lines only, each once, also while they are written.

Worker PID of machine, container or pod HOST writes `requests-HOST-PID.jsonl`; at its full size that becomes `.jsonl.1`,
`.1` becomes `.2`, and so on. So replicas may share a folder, and each knows the predictions of all. What people say of
them goes to `feedback.jsonl` beside them.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import psutil

REQUESTS = "requests-*.jsonl*"
HOST = re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())
QUIET_S = 7 * 86_400.0  # after which a file of another host counts as left
FEEDBACK_FILE = "feedback.jsonl"
DRIFT_FILE = "drift.json"  # monitoring.drift leaves its last finding here, for the metrics
CAPTURED_FOLDER = "captured"  # of kept pictures, unless capture.url names another place


def request_files(folder: Path, since: float = 0.0) -> list[Path]:
    """The files of the request log that were written at `since` (seconds of the epoch) or later, the latest last."""
    aged = []
    for path in folder.glob(REQUESTS):
        try:
            aged.append((path.stat().st_mtime, path))
        except FileNotFoundError:  # renamed or deleted by a worker meanwhile
            continue
    return [path for age, path in sorted(aged) if age >= since]


def request_file(folder: Path) -> Path:
    """What this process writes to."""
    return folder / f"requests-{HOST}-{os.getpid()}.jsonl"


def surplus(folder: Path, keep: int) -> list[Path]:
    """Files that may go: this host's but for the `keep` newest and those a living worker writes (a quiet one's is not
    among the newest), and those of other hosts, whose workers cannot be asked, that nobody wrote to for a week."""
    by_host: dict[bool, list[Path]] = {True: [], False: []}
    for path in request_files(folder):
        by_host[_writer(path)[0] == HOST].append(path)
    left = set(by_host[False]) - set(request_files(folder, time.time() - QUIET_S))
    return [path for path in by_host[True][:-keep] if not _is_written(path)] + sorted(left)


def _writer(path: Path) -> tuple[str, str]:
    """Host and process id."""
    host, _, pid = path.name.removeprefix("requests-").partition(".jsonl")[0].rpartition("-")
    return host, pid


def _is_written(path: Path) -> bool:
    return path.suffix == ".jsonl" and psutil.pid_exists(int(_writer(path)[1]))


class Lines:
    """Records of such files, as JSON objects in which `keys` are texts. `time` becomes a datetime, in UTC unless it
    says otherwise."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys
        self.torn = 0  # lines that are no such record: a kill or a full disk left them, or another version wrote them

    def record(self, line: bytes) -> dict[str, Any] | None:
        """The record in a line; None when it holds none."""
        try:
            found = orjson.loads(line)
            if all(type(found[key]) is str for key in self.keys):
                if "time" in self.keys:
                    time = datetime.fromisoformat(found["time"])
                    found["time"] = time if time.tzinfo else time.replace(tzinfo=UTC)
                if isinstance(found, dict):
                    return found
        except (ValueError, LookupError, TypeError):
            pass
        self.torn += line != b"\n"
        return None


def identity(file: BinaryIO) -> bytes:
    """What a file is known by, whatever it is renamed to: its inode and its first line. One that got the inode of a
    deleted file is another."""
    first = hashlib.sha256(b"%d " % os.fstat(file.fileno()).st_ino)
    file.seek(0)
    first.update(file.readline())
    return first.digest()


class Tail(Lines):
    """Reads on in growing files: a record is not read again, also when its file was renamed meanwhile."""

    def __init__(self, *keys: str) -> None:
        super().__init__(*keys)
        self.unfinished = 0  # times that a last line had no end: torn too, or still being written
        self._offsets: dict[bytes, int] = {}

    def read(self, path: Path) -> Iterator[dict[str, Any]]:
        """The records behind those read before, oldest first; a last line without its end is left for the next time.

        OSError when a file that is there cannot be read.
        """
        try:
            file = path.open("rb")
        except (FileNotFoundError, NotADirectoryError):
            return
        with file:
            known_by = identity(file)
            offset = self._offsets.get(known_by, 0)
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    self.unfinished += 1
                    return
                offset += len(line)
                self._offsets[known_by] = offset
                record = self.record(line)
                if record is not None:
                    yield record
