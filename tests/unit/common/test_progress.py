from __future__ import annotations

import io
import os
import pty
from collections.abc import Callable

import pytest

from training.common import progress
from training.common.progress import Bar


def test_a_log_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INTERVAL_S", 0.0)
    log = io.StringIO()
    assert list(Bar(range(3), "decode", unit="picture", miniters=1, file=log)) == [0, 1, 2]
    assert "\r" not in log.getvalue()
    assert "\x1b" not in log.getvalue()
    lines = log.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [f"decode: {count} of 3 pictures" for count in (1, 2, 3)]
    assert lines[0].endswith(" left")


@pytest.mark.parametrize(("unit", "shown"), [("batch", "batches"), ("epoch", "epochs"), ("picture", "pictures")])
def test_units_are_plural(unit: str, shown: str) -> None:
    with Bar(total=2, unit=unit, file=io.StringIO()) as bar:
        assert bar.unit == shown


def test_quick_work_leaves_a_log_alone() -> None:
    log = io.StringIO()
    for _ in Bar(range(2), "epochs", file=log):
        list(Bar(range(9), "batches", leave=False, file=log))
    assert log.getvalue() == ""


@pytest.mark.parametrize(("ends", "drawn"), [(pty.openpty, True), (os.pipe, False)])
def test_a_terminal_alone_gets_a_bar(ends: Callable[[], tuple[int, int]], drawn: bool) -> None:
    reader, writer = ends()
    with os.fdopen(reader, "rb", buffering=0) as far, os.fdopen(writer, "w") as near:
        list(Bar(range(3), "decode", unit="batch", file=near))
        near.write("end")
        near.flush()
        written = b""
        while not written.endswith(b"end"):
            written += far.read(1 << 16)
    assert (b"\rdecode: 100%" in written) is drawn
    assert (b"| 3 of 3 batches, 00:00 left" in written) is drawn
    assert (written == b"end") is not drawn
