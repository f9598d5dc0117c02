"""Labelled pictures come back as a folder that the pipeline takes."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest

from data.errors import DataError
from data.fetch import fetch
from monitoring import feedback
from monitoring.feedback import export, latest, report
from tests import killing
from tests.tiny import tiny_picture
from training import params
from training.serving.feedback_store import interval


def said(request_id: str, label: str, predicted: str = "cat", **changes: Any) -> dict[str, Any]:
    time = "2026-11-24T12:00:00.000+00:00"
    words = {"time": time, "request_id": request_id, "label": label, "predicted": predicted, "captured": None}
    return words | {"name": "cats-vs-dogs", "version": "3", "model_sha256": "a" * 16} | changes


def write(folder: Path, *records: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "feedback.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def keep(folder: Path, data: bytes, day: str = "2026-11-24") -> str:
    path = f"{day}/{hashlib.sha256(data).hexdigest()}.png"
    (folder / day).mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(data)
    return path


def test_an_exported_folder_goes_through_data_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = killing.project(tmp_path / "project", source="folder", path="labelled")
    kept = project / "logs/captured"
    pictures = [(tiny_picture(label, seed), ("cat", "dog")[label]) for label in (0, 1) for seed in range(5)]
    write(
        project / "logs",
        *[said(str(n), label, captured=keep(kept, data)) for n, (data, label) in enumerate(pictures)],
        said("not kept", "dog"),
        said("too old", "dog", captured="2026-01-01/ab.png"),
    )
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["feedback", "export"])
    feedback.main()
    expected = (
        "labelled: 10 pictures (cat 5, dog 5); left out: 1 not kept, 1 missing, 0 damaged, 0 labelled in two ways"
    )
    assert capsys.readouterr().out.strip() == expected
    assert fetch(params.load().data).classes == {"cat": 5, "dog": 5}
    found = {(path.read_bytes(), path.parent.name) for path in (project / "data/raw").rglob("*.png")}
    assert found == set(pictures)


def test_pictures_beside_another_log_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(killing.project(tmp_path / "project"))
    logs = tmp_path / "logs"
    write(logs, said("1", "cat", captured=keep(logs / "captured", tiny_picture(0, 1))))
    monkeypatch.setattr(sys, "argv", ["feedback", "export", "--log-dir", str(logs)])
    feedback.main()
    assert len(list(Path("labelled/cat").iterdir())) == 1
    with pytest.raises(DataError, match="labelled exists already"):
        feedback.main()


def test_the_last_label_of_a_request_counts_and_a_contradicted_picture_is_left_out(tmp_path: Path) -> None:
    corrected, disputed, twice = (keep(tmp_path / "kept", tiny_picture(0, seed)) for seed in range(3))
    again = keep(tmp_path / "kept", tiny_picture(0, 2), day="2026-11-25")
    write(
        tmp_path / "logs",
        said("1", "dog", captured=corrected),
        said("1", "cat", captured=corrected),
        said("2", "cat", captured=disputed),
        said("3", "dog", captured=disputed),
        said("4", "cat", captured=twice),
        said("5", "cat", captured=again),
    )
    done = export(latest(tmp_path / "logs").values(), str(tmp_path / "kept"), tmp_path / "out")
    assert (done.pictures, done.contradicted) == ({"cat": 2}, 1)
    assert len(list((tmp_path / "out/cat").iterdir())) == 2
    assert not (tmp_path / "out/dog").exists()


def test_a_damaged_picture_is_left_out(tmp_path: Path) -> None:
    good, bad = (keep(tmp_path / "kept", tiny_picture(0, seed)) for seed in range(2))
    (tmp_path / "kept" / bad).write_bytes(b"cut off")
    both = [said("1", "cat", captured=good), said("2", "cat", captured=bad)]
    done = export(both, str(tmp_path / "kept"), tmp_path / "out")
    assert (done.pictures.total(), done.damaged) == (1, 1)


def test_pictures_come_from_an_object_store_too(tmp_path: Path) -> None:
    data = tiny_picture(0, 1)
    path = f"2026-11-24/{hashlib.sha256(data).hexdigest()}.png"
    fsspec.filesystem("memory").pipe_file(f"/bucket/{path}", data)
    assert export([said("1", "cat", captured=path)], "memory://bucket", tmp_path / "out").pictures.total() == 1


def test_nothing_is_overwritten_and_nothing_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("x")
    with pytest.raises(DataError, match="exists already"):
        export([], str(tmp_path), tmp_path / "out")
    with pytest.raises(DataError, match=r"capture\.sample_rate"):
        export([said("1", "cat")], str(tmp_path), tmp_path / "other")
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    with pytest.raises(DataError, match="no feedback"):
        latest(tmp_path)


def test_the_report_counts_by_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, said("1", "cat"), said("2", "dog"), said("3", "cat"), said("4", "dog", "dog", version="4"))
    found = report(latest(tmp_path).values())
    assert found["3"]["confusion"] == {"cat": {"cat": 2}, "dog": {"cat": 1}}
    assert found["3"]["accuracy_interval"] == list(interval(2, 3))
    assert found["4"]["accuracy"] == 1.0
    monkeypatch.setattr(sys, "argv", ["feedback", "report", "--log-dir", str(tmp_path), "--json"])
    feedback.main()
    assert json.loads(capsys.readouterr().out) == found
    monkeypatch.setattr(sys, "argv", ["feedback", "report", "--log-dir", str(tmp_path)])
    feedback.main()
    assert "version 3: accuracy 0.6667" in capsys.readouterr().out
    assert latest(tmp_path, feedback.moment("2026-11-24")).keys() == set("1234")
    with pytest.raises(DataError, match="since 2026-11-25"):
        latest(tmp_path, feedback.moment("2026-11-25"))
