"""Kept pictures: in any store that fsspec knows, for a time, and never at the cost of an answer."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from training.params import Capture, ParamsError
from training.serving import settings
from training.serving.records import capture, metrics
from training.serving.records.capture import Captures

ROOT = Path(__file__).parents[3]


def outcomes(name: str) -> float:
    value: float = metrics.CAPTURES.labels(name)._value.get()
    return value


def captures(url: str, rate: float = 1.0, days: float = 30.0, max_bytes: int = 10**9) -> Captures:
    return Captures(Capture(sample_rate=rate, url=url, retention_days=days, max_bytes=max_bytes))


@pytest.fixture(params=["folder", "object store"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "folder":
        yield str(tmp_path / "kept/deeper")
    else:
        yield "memory://bucket/kept"
        fsspec.filesystem("memory").rm("/bucket", recursive=True)


def test_a_picture_is_stored_under_its_day_and_hash(url: str) -> None:
    keeping, before = captures(url), outcomes("stored")
    path = keeping.store(b"bytes", "ab12", "JPEG")
    keeping.close()
    assert path == f"{datetime.now(UTC).date()}/ab12.jpeg"
    store, root = fsspec.url_to_fs(url)
    assert [name.rpartition("/")[2] for name in store.find(root)] == ["ab12.jpeg"]
    assert store.cat_file(f"{root}/{path}") == b"bytes"
    assert outcomes("stored") - before == 1


def test_days_that_are_too_old_are_deleted_and_nothing_else(url: str) -> None:
    store, root = fsspec.url_to_fs(url)
    now = datetime.now(UTC)
    for folder in ("other", *(str((now - timedelta(days=age)).date()) for age in (4, 3, 2, 0))):
        store.makedirs(f"{root}/{folder}", exist_ok=True)
        store.pipe_file(f"{root}/{folder}/a.png", b"x")
    keeping = captures(url, days=2)
    keeping.clean(now)
    keeping.close()
    left = {name.split("/")[-2] for name in store.find(root)}
    assert left == {"other", str((now - timedelta(days=2)).date()), str(now.date())}


def test_of_too_many_bytes_the_oldest_go(url: str) -> None:
    store, root = fsspec.url_to_fs(url)
    today = datetime.now(UTC)
    days = [str((today - timedelta(days=age)).date()) for age in (2, 1, 0)]
    for number, day in enumerate(days):
        store.makedirs(f"{root}/{day}", exist_ok=True)
        for name in "ab":
            store.pipe_file(f"{root}/{day}/{2 - number}{name}.png", b"x" * 100)
    store.makedirs(f"{root}/other", exist_ok=True)
    store.pipe_file(f"{root}/other/large.png", b"x" * 1000)
    keeping = captures(url, max_bytes=600)
    keeping.clean(today)
    assert len(store.find(root)) == 7
    keeping.max_bytes = 550  # one is to go, and as much as a tenth
    keeping.clean(today)
    keeping.close()
    assert {name.rpartition("/")[2] for name in store.find(root)} == {
        "1a.png",
        "1b.png",
        "0a.png",
        "0b.png",
        "large.png",
    }


def test_what_was_stored_since_the_last_look_calls_for_another(tmp_path: Path) -> None:
    keeping = captures(str(tmp_path), max_bytes=1000)
    for number in range(100):
        while keeping.store(b"x" * 100, f"{number:03}", "PNG") is None:
            time.sleep(0.001)
    keeping._thread.shutdown()
    deadline = time.monotonic() + 10
    while len(list(tmp_path.glob("*/*"))) > 10 and time.monotonic() < deadline:  # of 100 bytes each
        time.sleep(0.01)
    keeping.close()
    assert 0 < len(list(tmp_path.glob("*/*.png"))) <= 10


def test_workers_that_store_the_same_picture_do_not_meet(url: str) -> None:
    both, before = [captures(url), captures(url)], {name: outcomes(name) for name in ("stored", "failed")}
    for number in range(50):
        for each in both:
            each.store(b"x" * 50_000, str(number), "PNG")
    for each in both:
        each.close()
    assert {name: outcomes(name) - before[name] for name in before} == {"stored": 100, "failed": 0}
    store, root = fsspec.url_to_fs(url)
    assert {store.size(path) for path in store.find(root)} == {50_000}
    assert len(store.find(root)) == 50


def test_a_full_disk_leaves_nothing_of_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mv(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(LocalFileSystem, "mv", mv)
    keeping, before = captures(str(tmp_path)), outcomes("failed")
    keeping.store(b"bytes", "ab12", "PNG")
    keeping.close()
    assert outcomes("failed") - before == 1
    assert [path for path in tmp_path.glob("*/*") if path.is_file()] == []


def test_the_sample_is_as_large_as_asked(tmp_path: Path) -> None:
    keeping = captures(str(tmp_path), rate=0.25)
    assert 400 < sum(keeping.chosen() for _ in range(2000)) < 600
    keeping.close()
    none = captures(str(tmp_path), rate=0.0)
    assert not any(none.chosen() for _ in range(1000))
    none.close()


def test_what_cannot_be_stored_is_counted(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    keeping, before = captures(str(tmp_path / "file")), outcomes("failed")
    assert keeping.store(b"bytes", "ab12", "PNG") is not None
    keeping.close()
    assert outcomes("failed") - before == 1


def test_a_slow_store_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(capture, "WAITING", 2)
    keeping, before = captures(str(tmp_path)), outcomes("dropped")
    monkeypatch.setattr(capture, "_open", lambda url: (go_on.wait(5), fsspec.url_to_fs(url))[1])
    paths = [keeping.store(b"bytes", f"{number}", "PNG") for number in range(4)]
    go_on.set()
    keeping.close()
    assert [path is not None for path in paths] == [True, True, False, False]
    assert outcomes("dropped") - before == 2


def test_an_unknown_store_is_refused_at_start() -> None:
    with pytest.raises(ParamsError, match=r"capture\.url nonsense://x"):
        settings.load_capture(ROOT, {"CAPTURE_URL": "nonsense://x"})


@pytest.mark.parametrize("url", [None, "", "null"])
def test_without_a_url_pictures_lie_beside_the_request_log(url: str | None) -> None:
    environ = {"SERVE_LOG_DIR": "/logs"} | ({} if url is None else {"CAPTURE_URL": url})
    assert settings.load_capture(ROOT, environ).url == "/logs/captured"
    assert settings.load_capture(ROOT, environ, Path("/elsewhere")).url == "/elsewhere/captured"
    assert settings.load_capture(ROOT, environ | {"CAPTURE_URL": "memory://b"}, Path("/elsewhere")).url == "memory://b"


def test_pictures_are_not_kept_nowhere() -> None:
    nowhere = {"SERVE_LOG_DIR": "null"}
    with pytest.raises(ParamsError, match=r"capture\.url and serve\.log_dir name no folder"):
        settings.load_capture(ROOT, nowhere | {"CAPTURE_SAMPLE_RATE": "0.1"})
    none = Captures(settings.load_capture(ROOT, nowhere))
    assert not none.chosen()
    none.close()


def test_the_environment_overrides_params() -> None:
    changed = settings.load_capture(ROOT, {"CAPTURE_SAMPLE_RATE": "0.5", "CAPTURE_URL": "memory://b"})
    assert (changed.sample_rate, changed.url) == (0.5, "memory://b")
    assert timedelta(days=changed.retention_days) == timedelta(days=30)
