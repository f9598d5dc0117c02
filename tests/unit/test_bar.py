from __future__ import annotations

import io

import pytest

from training import bar
from training.bar import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bar, "INTERVAL_S", 0.0)
    log = io.StringIO()
    assert list(Bar(range(3), "decode", unit="picture", miniters=1, file=log)) == [0, 1, 2]
    assert "\r" not in log.getvalue() and "\x1b" not in log.getvalue()
    lines = log.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [f"decode: {count} of 3 picture" for count in (1, 2, 3)]
    assert lines[0].endswith(" left")


def test_quick_work_leaves_a_log_alone() -> None:
    log = io.StringIO()
    for _ in Bar(range(2), "epochs", file=log):
        list(Bar(range(9), "batches", leave=False, file=log))
    assert log.getvalue() == ""


def test_a_terminal_gets_a_bar() -> None:
    terminal = Terminal()
    list(Bar(range(3), "decode", file=terminal))
    assert "\rdecode: 100%" in terminal.getvalue()
