"""Writing the request log: one JSON line a prediction, by a thread of its own, and never at the cost of an answer.

A line that cannot be written (full or read-only disk, queue full) is lost and counted; serving goes on, and the file
is opened anew. A kill loses the lines of the last tenth of a second.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, cast

import orjson

from training.serving.records import metrics
from training.serving.records.deferred import Deferred
from training.serving.records.log_files import request_file, surplus

log = logging.getLogger("bentoml.request_log")


class RequestLog:
    """The log of this worker in `folder`: files of at most `max_bytes`, of all workers of this host
    together the newest `files` and one more of each other worker at most."""

    def __init__(self, folder: Path, max_bytes: int, files: int) -> None:
        self._file = _File(folder, max_bytes, files)
        self._later: Deferred[dict[str, Any]] = Deferred(
            "request-log", self._file.append, lambda _: metrics.LOG_ERRORS.inc()
        )
        self.add, self.flush = self._later.add, self._later.flush

    def close(self) -> None:
        """Write the rest, and close the file."""
        self._later.close()
        self._file.close()


class _File(RotatingFileHandler):
    """A rotating file of lines, given many at a time. What goes wrong is counted, and told once until it is mended."""

    def __init__(self, folder: Path, max_bytes: int, files: int) -> None:
        self.folder, self.files = folder, files
        self._lines = 0  # of the batch being written
        self._error: Exception | None = None  # of that batch
        self._broken = False  # the batch before failed
        super().__init__(request_file(folder), maxBytes=max_bytes, backupCount=files, encoding="utf-8", delay=True)

    def append(self, batch: list[dict[str, Any]]) -> None:
        """Write the records as lines; behind a failed batch, a new line ends what may have come of it."""
        self._lines, self._error = len(batch), None
        record = logging.makeLogRecord({})
        try:
            lines = map(bytes.decode, map(orjson.dumps, batch))
            record.msg = "\n".join(["", *lines] if self._broken else lines)
            if self.stream and not os.fstat(self.stream.fileno()).st_nlink:  # another host took it for left
                self.stream.close()
                self.stream = None
        except Exception:
            self.handleError(record)
        else:
            self.emit(record)
        if self._error and not self._broken:
            log.warning("request log: %s; predictions go on unrecorded", self._error)
        self._broken = self._error is not None

    def handleError(self, _record: logging.LogRecord) -> None:
        """Called in an exception's handler: counts the batch as lost, and has the file opened anew next time."""
        self._error = cast(Exception, sys.exception())
        metrics.LOG_ERRORS.inc(self._lines)
        if self.stream:
            with contextlib.suppress(OSError):
                self.stream.close()
            self.stream = None

    def _open(self) -> TextIOWrapper:
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in surplus(self.folder, self.files - 1):
            path.unlink(missing_ok=True)
        return super()._open()
