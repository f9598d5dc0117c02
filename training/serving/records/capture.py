"""Keeping a sample of the pictures, to be labelled and learnt from: in a folder or an object store, for a time.

A thread of its own stores them as `URL/DAY/SHA256.EXTENSION`, through fsspec. What cannot be stored is counted.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import fsspec

from training.params import Capture
from training.serving.records import metrics

WAITING = 100  # pictures on their way to the store; beyond it they are not kept
LOOK_S = 3600.0  # between looks for pictures that are too old
OUTCOMES = ("stored", "dropped", "failed", "not_deleted")

log = logging.getLogger("bentoml.capture")


class Captures:
    """The store of kept pictures. Those that are too old are deleted also when none are kept any more."""

    def __init__(self, capture: Capture) -> None:
        self.rate = capture.sample_rate
        self.url = capture.url or ""  # empty: nothing is kept
        self.age = timedelta(days=capture.retention_days)
        for outcome in OUTCOMES:
            metrics.CAPTURES.labels(outcome)  # 0 from the start: Prometheus does not see a series that begins at 1
        self._room = threading.Semaphore(WAITING)
        self._thread = ThreadPoolExecutor(1, "capture")
        self._closing = threading.Event()
        if self.url:
            threading.Thread(target=self._clean_on, name="capture-retention", daemon=True).start()

    def chosen(self) -> bool:
        """Whether the next picture is one of the sample."""
        return random.random() < self.rate

    def store(self, data: bytes, sha256: str, kind: str) -> str | None:
        """Have a picture stored soon; its path under the URL, or None when too many are on their way already."""
        if not self._room.acquire(blocking=False):
            metrics.CAPTURES.labels("dropped").inc()
            return None
        path = f"{datetime.now(UTC).date()}/{sha256}.{kind.lower()}"
        self._thread.submit(self._store, path, data)
        return path

    def close(self) -> None:
        """Store what is on its way, and stop."""
        self._closing.set()
        self._thread.shutdown()

    def _store(self, path: str, data: bytes) -> None:
        try:
            store, root = _open(self.url)
            target = f"{root}/{path}"
            store.makedirs(target.rpartition("/")[0], exist_ok=True)
            store.pipe_file(f"{target}.part", data)
            store.mv(f"{target}.part", target)
            metrics.CAPTURES.labels("stored").inc()
        except Exception as error:  # whatever the store's driver raises, serving goes on
            metrics.CAPTURES.labels("failed").inc()
            log.warning("%s/%s was not stored: %s", self.url, path, error)
        finally:
            self._room.release()

    def _clean_on(self) -> None:
        while True:
            try:
                self.clean(datetime.now(UTC))
            except Exception as error:  # as above
                metrics.CAPTURES.labels("not_deleted").inc()
                log.warning("%s: pictures that are too old were not deleted: %s", self.url, error)
            if self._closing.wait(LOOK_S):
                return

    def clean(self, now: datetime) -> None:
        """Delete the days whose last picture is older than `capture.retention_days`."""
        store, root = _open(self.url)
        if not store.exists(root):
            return
        for folder in store.ls(root, detail=False):
            day = _day(folder)
            if day and day + timedelta(days=1) + self.age <= now:
                with contextlib.suppress(FileNotFoundError):  # another worker does the same
                    store.rm(folder, recursive=True)


def _open(url: str) -> tuple[Any, str]:
    store, root = fsspec.url_to_fs(url)
    return store, root.rstrip("/")


def _day(folder: str) -> datetime | None:
    try:
        return datetime.strptime(folder.rstrip("/").rpartition("/")[2], "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return None  # no folder of ours
