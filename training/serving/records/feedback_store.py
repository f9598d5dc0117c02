"""What people say a picture shows, kept for good, and the live accuracy that follows from it.

A prediction is known by its request id from the files of the request log, those of all workers and former runs. What
is said goes to feedback.jsonl, a line each, on the disk before it is answered; of several on one request the last one
counts. A client may choose the id of a request: with one picture it stands for one prediction however often it was
sent, with different pictures it stands for none. (That is known once the workers have written both down, a tenth of a
second after the answers.)
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import orjson

from training.common.intervals import wilson_corrected
from training.serving.errors import Fault
from training.serving.records import metrics
from training.serving.records.log_files import FEEDBACK_FILE, Tail, request_files

KNOWN = 200_000  # requests, and feedback, that are remembered; the oldest are forgotten
KNOWN_ARE = (
    "send the request_id of an answer of /predict, or of a picture in an answer of /predict_batch (ID.0, ID.1, ...), "
    "that is not too old; those of /explain are not kept"
)
log = logging.getLogger("bentoml.feedback")
_Value = TypeVar("_Value")


class Written(Protocol):
    """What predictions are written by."""

    def flush(self) -> None:
        """Write those that were made so far."""


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
    picture: int  # a hash of its SHA-256: there are many of these
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


SEVERAL = Known(None, 0, 0.0)


class Counted(NamedTuple):
    """What is counted of what was said of a prediction."""

    label: str
    version: str
    predicted: str


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
        self.folder = folder
        self.log = log
        self.classes = classes
        self._lock = threading.Lock()
        self._requests = Tail("request_id", "time", "picture_sha256", *Prediction._fields)
        self._said = Tail("request_id", "label", "version", "predicted")
        self._predictions: Recent[Known] = Recent(KNOWN)
        self._counted: Recent[Counted] = Recent(KNOWN)
        self._unreadable: set[Path] = set()
        self._same: dict[tuple[str | None, ...], Any] = {}  # equal predictions, and equal counts, share their memory
        self._right: Counter[str] = Counter()
        self._count: Counter[str] = Counter()

    def record(self, request_id: str, label: str) -> dict[str, Any]:
        """Keep that `label` is what the picture shows; the JSON of `FeedbackResponse`. Saying it again changes nothing.

        Raises Fault: unknown_label, unknown_request, ambiguous_request_id, or not_recorded when the disk does not take
        it or the request log cannot be used.
        """
        if label not in self.classes:
            hint = f"send one of {', '.join(self.classes)}"
            raise Fault(422, "unknown_label", f"{label[:50]!r} is no class of the model", hint)
        try:
            with self._lock:
                known = self._prediction(request_id)
                self._keep(request_id, label, known)
        except OSError as error:
            message = f"the feedback cannot be kept: {error.strerror}"
            raise Fault(503, "not_recorded", message, "try again later", Retry_After="60") from None
        correct = label == known.predicted
        return {
            "request_id": request_id,
            "label": label,
            "predicted": known.predicted,
            "correct": correct,
            "version": known.version,
        }

    def accuracy(self) -> dict[str, Accuracy]:
        """Live accuracy by model version: whether the class with the highest probability was right.

        OSError when the file of feedback cannot be read.
        """
        with self._lock:
            self._read_on()
            return {
                version: Accuracy(self._right[version], count, *wilson_corrected(self._right[version], count))
                for version, count in self._count.items()
                if count
            }

    def _prediction(self, request_id: str) -> Prediction:
        if self.folder is None or self.log is None:
            raise _unknown(request_id, "the request log is off: serve.log_dir is null")
        self.log.flush()
        files = request_files(self.folder)
        for path in files:
            self._read_requests(path)
        known = self._predictions.get(request_id)
        if known is None and self._unreadable.intersection(files):
            raise OSError(errno.EIO, os.strerror(errno.EIO))  # it may stand in what cannot be read now
        if known is None:
            _check(self.folder)
            raise _unknown(request_id, KNOWN_ARE)
        if known.made is None:
            message = f"different pictures were sent with the request id {request_id[:150]!r}"
            hint = "which of them is meant cannot be known: send an X-Request-ID of its own with every request, or none"
            raise Fault(409, "ambiguous_request_id", message, hint)
        return known.made

    def _read_requests(self, path: Path) -> None:
        """Learn of the predictions in a file; one that cannot be read costs only those that stand in it."""
        try:
            for record in self._requests.read(path):
                self._learn(record)
        except OSError as error:
            if path not in self._unreadable:
                log.warning("feedback on the predictions of %s is not taken: %s", path, error.strerror)
            self._unreadable.add(path)
        else:
            self._unreadable.discard(path)

    def _learn(self, record: dict[str, Any]) -> None:
        made = Prediction(*[record[name] for name in Prediction._fields])
        shared = made if made.captured else self._same.setdefault(made, made)
        time = datetime.fromisoformat(record["time"]).timestamp()
        known, request_id = Known(shared, hash(record["picture_sha256"]), time), record["request_id"]
        former = self._predictions.get(request_id)
        self._predictions[request_id] = known if former is None else former.with_another(known)

    def _keep(self, request_id: str, label: str, known: Prediction) -> None:
        assert self.folder is not None
        with _locked(self.folder / FEEDBACK_FILE) as file:
            self._read_on()
            if self._counted.get(request_id) == (label, known.version, known.predicted):
                return
            record = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "request_id": request_id}
            _append(file, orjson.dumps(record | {"label": label} | known._asdict()) + b"\n")
        metrics.said(known.predicted, label, known.version, len(self.classes))

    def _read_on(self) -> None:
        """Count what this and other workers wrote since."""
        if self.folder is None:
            return
        for record in self._said.read(self.folder / FEEDBACK_FILE):
            said = Counted(*[record[name] for name in Counted._fields])
            former = self._counted.get(record["request_id"])
            if former is not None:  # it may be of another version: an id that was sent again
                self._add(former, -1)
            self._add(said, 1)
            self._counted[record["request_id"]] = self._same.setdefault(said, said)

    def _add(self, said: Counted, number: int) -> None:
        self._count[said.version] += number
        self._right[said.version] += number * (said.label == said.predicted)


class Recent(Generic[_Value]):
    """A mapping that remembers at least the `size` / 2 and at most the `size` keys that were set last."""

    def __init__(self, size: int) -> None:
        self.half = size // 2
        self._old: dict[str, _Value] = {}
        self._new: dict[str, _Value] = {}

    def __setitem__(self, key: str, value: _Value) -> None:
        if len(self._new) >= self.half:
            self._old, self._new = self._new, {}
        self._new[key] = value

    def get(self, key: str) -> _Value | None:
        """The value set last, None when there is none or it is forgotten."""
        return self._new.get(key, self._old.get(key))


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
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
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


def _unknown(request_id: str, hint: str) -> Fault:
    return Fault(404, "unknown_request", f"no prediction with the request id {request_id[:150]!r} is known", hint)
