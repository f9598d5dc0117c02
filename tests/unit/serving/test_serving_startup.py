"""A check that did not end by itself says so."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from bentoml.exceptions import BentoMLException

from tests.service.server import promotion_of
from training.model.pin import PROMOTION_FILE, Champion
from training.serving import startup


@pytest.fixture(autouse=True)
def any_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "folder_path", lambda _: Path("model"))


@pytest.mark.parametrize(
    ("code", "said", "expected"),
    [
        (1, "a warning\nthe model cannot be served: why", "^the model cannot be served: why$"),
        (1, "", "^it said nothing$"),
        (-9, "", r"^the check of the model was killed by SIGKILL \(out of memory, .*\): it said nothing$"),
        (-11, "Fatal error", r"^the check of the model was killed by SIGSEGV \(a fault in native code\): Fatal error$"),
    ],
)
def test_a_check_that_fails_or_is_killed_is_one_line(
    monkeypatch: pytest.MonkeyPatch, code: int, said: str, expected: str
) -> None:
    ended = subprocess.CompletedProcess([], code, stderr=said)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    with pytest.raises(BentoMLException, match=expected):
        startup.check(None)


def test_a_check_that_takes_too_long_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object, **how: Any) -> None:
        raise subprocess.TimeoutExpired("check", how["timeout"])

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(BentoMLException, match="not checked within 60 s"):
        startup.check(None)


def test_why_the_gate_was_overruled_is_told(tmp_path: Path) -> None:
    pin = Champion("cats-vs-dogs", "cats-vs-dogs:0123456789abcdef", "3", "a" * 32, "ab" * 32)
    failed = [{"name": "never worse", "passed": False}]
    (tmp_path / "models").mkdir()
    record = promotion_of(pin, gate="forced", forced="the camera changed", checks=failed)
    (tmp_path / PROMOTION_FILE).write_text(json.dumps(record))
    judged = "2026-01-02T00:00:00+00:00"
    assert startup.gate(pin, tmp_path) == {"verdict": "forced", "forced": "the camera changed", "judged": judged}
    assert startup.gate(None) is None


def test_how_a_process_ended_is_said_in_words() -> None:
    assert startup.ending(3) == "ended with exit code 3"
    assert startup.ending(-signal.SIGTERM) == "was killed by SIGTERM"
    assert "full" in startup.ending(-signal.SIGBUS)
    assert startup.ending(-40) == "was killed by signal 40"
