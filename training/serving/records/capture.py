"""Keeping a sample of the pictures, to be labelled and learnt from: in a folder or an object store, for a time, and
in bounded space.

A thread of its own stores them as `URL/DAY/SHA256.EXTENSION`, through fsspec. What cannot be stored is counted.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import fsspec

from training.params import Capture
from training.serving.records import metrics

WAITING = 100  # pictures on their way to the store; beyond it they are not kept
LOOK_S = 3600.0  # between looks for pictures that are too old
LOOK_SHARE = 0.01  # of the bytes that may be kept, stored by this worker since the last look, are time for another one
KEPT_SHARE = 0.9  # of them stays when there were too many
OUTCOMES = ("stored", "dropped", "failed", "not_deleted")

log = logging.getLogger("bentoml.capture")


class Captures:
    """The store of kept pictures. Those that are too old are deleted also when none are kept any more."""

    def __init__(self, capture: Capture) -> None:
        self.rate = capture.sample_rate
        self.url = capture.url or ""  # empty: nothing is kept
        self.age = timedelta(days=capture.retention_days)
        self.max_bytes = capture.max_bytes
        self._stored = 0  # bytes since the last look
        for outcome in OUTCOMES:
            metrics.CAPTURES.labels(outcome)  # 0 from the start: Prometheus does not see a series that begins at 1
        self._room = threading.Semaphore(WAITING)
        self._thread = ThreadPoolExecutor(1, "capture")
        self._closing, self._look = threading.Event(), threading.Event()
        if self.url:
            threading.Thread(target=self._clean_on, name="capture-retention", daemon=True).start()
        self._part = f"{uuid.uuid4().hex}.part"  # of this worker's: another may store the same picture

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
        self._look.set()
        self._thread.shutdown()

    def _store(self, path: str, data: bytes) -> None:
        try:
            store, root = _open(self.url)
            target = f"{root}/{path}"
            store.makedirs(target.rpartition("/")[0], exist_ok=True)
            try:
                store.pipe_file(f"{target}.{self._part}", data)
                store.mv(f"{target}.{self._part}", target)
            except BaseException:  # a full disk: what came of it takes place
                with contextlib.suppress(Exception):
                    store.rm_file(f"{target}.{self._part}")
                raise
            metrics.CAPTURES.labels("stored").inc()
        except Exception as error:  # whatever the store's driver raises, serving goes on
            metrics.CAPTURES.labels("failed").inc()
            log.warning("%s/%s was not stored: %s", self.url, path, error)
        finally:
            self._room.release()
        self._stored += len(data)
        if self._stored > self.max_bytes * LOOK_SHARE:
            self._stored = 0
            self._look.set()

    def _clean_on(self) -> None:
        while not self._closing.is_set():
            self._look.clear()
            try:
                self.clean(datetime.now(UTC))
            except Exception as error:  # as above
                metrics.CAPTURES.labels("not_deleted").inc()
                log.warning("%s: pictures that are too old or too many were not deleted: %s", self.url, error)
            self._look.wait(LOOK_S)

    def clean(self, now: datetime) -> None:
        """Delete the days whose last picture is older than `capture.retention_days`, and the oldest pictures while all
        together take more than `capture.max_bytes`."""
        store, root = _open(self.url)
        store.invalidate_cache()  # other workers store there too
        if not store.exists(root):
            return
        kept: list[tuple[str, str, str, int]] = []
        for folder in store.ls(root, detail=False):
            day = _day(folder)
            if day is None:
                continue
            if day + timedelta(days=1) + self.age <= now:
                with contextlib.suppress(FileNotFoundError):  # another worker does the same
                    store.rm(folder, recursive=True)
            else:
                for path, facts in store.find(folder, detail=True).items():
                    written = facts.get("mtime") or facts.get("LastModified") or facts.get("created") or ""
                    kept.append((str(day), str(written), path, facts["size"]))
        surplus = sum(size for *_, size in kept) - self.max_bytes
        if surplus > 0:
            surplus += int(self.max_bytes * (1 - KEPT_SHARE))
        for *_, path, size in sorted(kept):
            if surplus <= 0:
                return
            with contextlib.suppress(FileNotFoundError):
                store.rm_file(path)
            surplus -= size


def _open(url: str) -> tuple[Any, str]:
    store, root = fsspec.url_to_fs(url)
    return store, root.rstrip("/")


def _day(folder: str) -> datetime | None:
    try:
        return datetime.strptime(folder.rstrip("/").rpartition("/")[2], "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return None  # no folder of ours
