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
from training.common.intervals import wilson_corrected


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


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two kept pictures that have feedback; it is the current folder."""
    project = killing.project(tmp_path / "project", source="folder", path="labelled")
    kept = project / "logs/captured"
    pairs = enumerate([("cat", tiny_picture(0, 1)), ("dog", tiny_picture(1, 2))])
    write(project / "logs", *[said(str(n), label, captured=keep(kept, data)) for n, (label, data) in pairs])
    monkeypatch.chdir(project)
    return project


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["feedback", *words])
    feedback.main()


def tree(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(tiny_picture(number % 2, 100 + number))
    return root


def names(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def kept_name(label: int, seed: int) -> str:
    return hashlib.sha256(tiny_picture(label, seed)).hexdigest()[:16] + ".png"


def test_former_pictures_are_put_beside_the_labelled_ones(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tree(project / "data/raw", "cats/1.png", "dog/2.png", "dogs/3.png")  # data.rename: cats -> cat, dogs -> dog
    run(monkeypatch, "export", "--with", "data/raw")
    assert "labelled: 2 pictures (cat 1, dog 1) beside 3 others; left out" in capsys.readouterr().out
    labelled = {f"cats/{kept_name(0, 1)}", f"dog/{kept_name(1, 2)}"}
    assert names(Path("labelled")) == {"cats/1.png", "dog/2.png", "dogs/3.png"} | labelled
    assert Path("labelled/cats/1.png").samefile("data/raw/cats/1.png")
    assert fetch(params.load().data).pictures == 5
    run(monkeypatch, "export", "--with", "data/raw", "--out", "again")  # it holds those that were exported before
    assert names(Path("again")) == names(Path("labelled"))


def test_train_and_test_stay_apart_and_what_is_labelled_goes_to_train(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("train/cat/1.png", "train/dog/2.png", "test/cat/3.png", "test/dog/4.png")
    run(monkeypatch, "export", "--with", str(tree(project / "photographs", *given)))
    labelled = {f"train/cat/{kept_name(0, 1)}", f"train/dog/{kept_name(1, 2)}"}
    assert names(Path("labelled")) == {*given} | labelled


def test_a_former_picture_is_never_written_over(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    former = tree(project / "photographs", f"cat/{kept_name(0, 1)}", "dog/2.png")
    before = {name: (former / name).read_bytes() for name in names(former)}
    run(monkeypatch, "export", "--with", str(former))
    assert {name: (former / name).read_bytes() for name in names(former)} == before
    assert len(names(Path("labelled/cat"))) == 2


def test_without_links_former_pictures_are_copied(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr("os.link", refuse)
    former = tree(project / "photographs", "cat/1.png", "dog/2.png")
    run(monkeypatch, "export", "--with", str(former))
    assert Path("labelled/cat/1.png").read_bytes() == (former / "cat/1.png").read_bytes()


@pytest.mark.parametrize(
    ("folder", "out", "message"),
    [
        ("flowers", "labelled", r"'cat' is no class of .* \(rose, tulip\)"),
        ("flowers", "flowers/labelled", "lies in flowers"),
        ("nowhere", "labelled", "not a folder"),
    ],
)
def test_former_pictures_that_do_not_go_with_the_labels_are_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, folder: str, out: str, message: str
) -> None:
    tree(project / "flowers", "rose/1.png", "tulip/2.png")
    before = names(project)
    with pytest.raises(DataError, match=message):
        run(monkeypatch, "export", "--with", folder, "--out", out)
    assert names(project) == before


def test_a_store_without_its_driver_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^s3://bucket/x cannot be used: .*s3fs") as caught:
        export([said("1", "cat", captured="2026-11-24/ab.png")], "s3://bucket/x", tmp_path / "out")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"^nothing://x cannot be used: "):
        export([said("1", "cat", captured="2026-11-24/ab.png")], "nothing://x", tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [RuntimeError("no\ncredentials"), PermissionError("Forbidden")])
def test_a_store_that_cannot_be_read_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object) -> bytes:
        raise error

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", fails)
    with pytest.raises(DataError, match=r"^/bucket/2026-11-24/ab\.png cannot be read: (no credentials|Forbidden)$"):
        export([said("1", "cat", captured="2026-11-24/ab.png")], "memory://bucket", tmp_path / "out")
    assert not list(tmp_path.iterdir())


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
    with pytest.raises(DataError, match="exists already: remove it, or name another folder by --out"):
        export([], str(tmp_path), tmp_path / "out")
    with pytest.raises(DataError, match=r"capture\.sample_rate"):
        export([said("1", "cat")], str(tmp_path), tmp_path / "other")
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    with pytest.raises(DataError, match="no feedback"):
        latest(tmp_path)


def test_a_missing_folder_is_not_taken_for_silence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is missing: --log-dir"):
        latest(tmp_path / "nowhere")


def test_lines_that_are_no_feedback_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, said("1", "cat"))
    with (tmp_path / "feedback.jsonl").open("a") as file:
        file.write('garbage\n{"request_id": "2"}\n{"time": "2026-')
    assert latest(tmp_path).keys() == {"1"}
    assert "feedback.jsonl: 3 lines that are no feedback skipped" in caplog.text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["report", "--since", "yesterday"], "'yesterday' is no date or time such as 2026-11-24 or"),
        ([], "required: COMMAND"),
    ],
)
def test_wrong_usage_says_what_is_right(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, *words)
    assert told in capsys.readouterr().err


def test_help_names_the_format_of_a_time_and_where_kept_pictures_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "export", "--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "before this date or time such as 2026-11-24" in text
    assert "default capture.url, or else the folder captured in that of the request log" in text


def test_the_report_counts_by_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, said("1", "cat"), said("2", "dog"), said("3", "cat"), said("4", "dog", "dog", version="4"))
    found = report(latest(tmp_path).values())
    assert found["3"]["confusion"] == {"cat": {"cat": 2}, "dog": {"cat": 1}}
    assert found["3"]["accuracy_interval"] == list(wilson_corrected(2, 3))
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
