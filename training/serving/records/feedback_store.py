"""What people say a picture shows, kept for good, and the live accuracy that follows from it.

A prediction is known by its request id from the files of the request log, those of all workers and former runs. What
is said goes to feedback.jsonl, a line each, on the disk before it is answered; of several on one request the last one
counts, and the others go when there are many. A client may choose the id of a request: with one picture it stands for
one prediction however often it was sent, with different pictures it stands for none. (That is known once the workers
have written both down, a tenth of a second after the answers.)
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
import time
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import orjson

from training.common.intervals import wilson_corrected
from training.serving.errors import Fault
from training.serving.records import metrics
from training.serving.records.index import Index, Prediction
from training.serving.records.log_files import FEEDBACK_FILE, Lines

CHANGES = 10  # of the label of one prediction
REPLACED = 10_000  # lines, and as many as there are that stand, before those that others replaced go
LOOK_S = 1.0  # between looks for what other workers and hosts wrote
SHARE = 0.2  # of one core's time for the index while it has much to read
KNOWN_ARE = (
    "send the request_id of an answer of /predict, or of a picture in an answer of /predict_batch (ID.0, ID.1, ...), "
    "that is not too old; those of /explain and /heatmap are not kept"
)
log = logging.getLogger("bentoml.feedback")


class Written(Protocol):
    """What predictions are written by."""

    def flush(self) -> None:
        """Write those that were made so far."""


class Accuracy(NamedTuple):
    """Live accuracy of one version, with its 95 % interval."""

    right: int
    pictures: int
    low: float
    high: float


class FeedbackStore:
    """The feedback in `folder` on predictions that `log` and other workers wrote there; None: there is none.

    Thread-safe, and right with several processes.
    """

    def __init__(self, folder: Path | None, log: Written | None, classes: Sequence[str]) -> None:
        self.folder, self.log, self.classes = folder, log, classes
        self.index = Index(folder) if folder else None
        self._lock = threading.Lock()
        self._unreadable: set[str] = set()
        self._closing = threading.Event()

    def follow(self) -> None:
        """Keep the index up to date, in a thread of its own."""
        if self.index:
            threading.Thread(target=self._follow, args=(self.index,), name="feedback-index", daemon=True).start()

    def close(self) -> None:
        """Stop that, and close the index."""
        self._closing.set()
        if self.index:
            self.index.close()

    def record(self, request_id: str, label: str) -> dict[str, Any]:
        """Keep that `label` is what the picture shows; the JSON of `FeedbackResponse`. Saying it again changes nothing.

        Raises Fault: unknown_label, unknown_request, ambiguous_request_id, too_many_changes, or not_recorded when the
        disk does not take it or the request log cannot be used.
        """
        if label not in self.classes:  # perhaps in another form of Unicode: file names of a Mac are
            label = unicodedata.normalize("NFC", label)
        if label not in self.classes:
            hint = f"send one of {', '.join(self.classes)}"
            raise Fault(422, "unknown_label", f"{label[:50]!r} is no class of the model", hint)
        if self.index is None or self.log is None:
            raise _unknown(request_id, "the request log is off: serve.log_dir is null")
        try:
            with self._lock:
                _check(self.index.folder)
                self.log.flush()
                known = self._prediction(self.index, request_id)
                self._keep(self.index, request_id, label, known)
        except OSError as error:
            message = f"the feedback cannot be kept: {error.strerror}"
            raise Fault(503, "not_recorded", message, "try again later", Retry_After="60") from None
        return {
            "request_id": request_id,
            "label": label,
            "predicted": known.predicted,
            "correct": label == known.predicted,
            "version": known.version,
        }

    def accuracy(self) -> dict[str, Accuracy]:
        """Live accuracy by model version, of those judged last: whether the class with the highest probability was
        right. It waits for nobody, so the last second of other workers and hosts may be missing.

        OSError when the file of feedback, or its index, cannot be read.
        """
        if self.index is None or not (self.index.folder / FEEDBACK_FILE).exists():
            return {}
        self.index.follow_feedback(wait=False)
        found = self.index.accuracy()
        return {version: Accuracy(*each, *wilson_corrected(*each)) for version, each in found.items()}

    def _prediction(self, index: Index, request_id: str) -> Prediction:
        known, errors = index.prediction(request_id)
        for error in errors:
            if error.filename not in self._unreadable:
                log.warning("feedback on the predictions of %s is not taken: %s", error.filename, error.strerror)
        self._unreadable = {error.filename for error in errors}
        if known is None and errors:
            raise OSError(errno.EIO, os.strerror(errno.EIO))  # it may stand in what cannot be read now
        if known is None:
            raise _unknown(request_id, KNOWN_ARE)
        if known.made is None:
            message = f"different pictures were sent with the request id {request_id[:150]!r}"
            hint = "which of them is meant cannot be known: send an X-Request-ID of its own with every request, or none"
            raise Fault(409, "ambiguous_request_id", message, hint)
        return known.made

    def _keep(self, index: Index, request_id: str, label: str, known: Prediction) -> None:
        path = index.folder / FEEDBACK_FILE
        with _locked(path) as file:
            last = index.said(request_id)
            if last and last[:3] == (label, known.version, known.predicted):
                return
            if last and last.changes > CHANGES:
                message = f"the label of {request_id[:150]!r} was changed {CHANGES} times"
                raise Fault(409, "too_many_changes", message, "what was said last counts; let a person look at it")
            record = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "request_id": request_id}
            _append(file, orjson.dumps(record | {"label": label} | known._asdict()) + b"\n")
            with suppress(OSError):  # what the index cannot take in now is no less kept
                index.follow_feedback()
                replaced, standing = index.replaced()
                if replaced > REPLACED + standing:
                    _compact(path, index)
        metrics.said(known.version, known.predicted, label, self.classes)

    def _follow(self, index: Index) -> None:
        pause, broken = 0.0, False
        while not self._closing.wait(pause):
            begun = time.thread_time()
            try:
                more = index.follow()
                broken = False
            except Exception as error:  # a full disk, say; what is not in the index is searched
                if not broken:
                    log.warning("the index of the request log is not brought up to date: %s", error)
                more, broken = False, True
            pause = (time.thread_time() - begun) / SHARE if more else LOOK_S


def _check(folder: Path) -> None:
    """Fault when there is no request log in `folder` because there cannot be one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        message = f"the request log cannot be used, so no prediction is known: {error.strerror}"
        hint = "try again later; serve.log_dir must be a folder that the service can read and write"
        raise Fault(503, "not_recorded", message, hint, Retry_After="60") from None


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The file opened to be added to, for this process alone."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), path.stat()):  # else another one compacted it meanwhile
                    yield file
                    return
        finally:
            os.close(file)


def _append(file: int, line: bytes) -> None:
    """Add a whole line and have it on the disk, or add nothing and raise OSError."""
    end = os.fstat(file).st_size
    if end and os.pread(file, 1, end - 1) != b"\n":
        line = b"\n" + line  # ends what a kill left unfinished
    try:
        if os.write(file, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file)
    except OSError:
        os.ftruncate(file, end)
        raise


def _compact(path: Path, index: Index) -> None:
    """Have only the last line of each request in the file, which this process has locked."""
    kind, last = Lines("request_id"), {}
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if record := kind.record(line):
                last[record["request_id"]] = number
        standing = set(last.values())
        file.seek(0)
        part = path.with_name(f"{path.name}.part")
        with part.open("w+b") as compact:
            compact.writelines(line for number, line in enumerate(file) if number in standing)
            compact.flush()
            os.fsync(compact.fileno())
            index.compacted(compact)
    part.replace(path)


def _unknown(request_id: str, hint: str) -> Fault:
    return Fault(404, "unknown_request", f"no prediction with the request id {request_id[:150]!r} is known", hint)
