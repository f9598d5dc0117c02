"""Kept pictures: in any store that fsspec knows, for a time, and never at the cost of an answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest

from training.params import Capture, ParamsError
from training.serving import settings
from training.serving.records import capture, metrics
from training.serving.records.capture import Captures

ROOT = Path(__file__).parents[3]


def outcomes(name: str) -> float:
    value: float = metrics.CAPTURES.labels(name)._value.get()
    return value


def captures(url: str, rate: float = 1.0, days: float = 30.0) -> Captures:
    return Captures(Capture(sample_rate=rate, url=url, retention_days=days))


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
