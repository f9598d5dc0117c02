from __future__ import annotations

import pytest

from training.common.table import columns, plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cat", "cat"),
        ("Käse 猫 👩\u200d🔬", "Käse 猫 👩\u200d🔬"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("a\nb\r\u2028", r"a\nb\r\u2028"),
        ("abc\u202egpj", r"abc\u202egpj"),
        ("\x9b31m", r"\x9b31m"),
    ],
)
def test_shows_what_a_terminal_would_obey(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_a_cell_stays_in_its_row() -> None:
    assert columns([("name", "n"), ("a\nb", "1")]).splitlines() == ["name  n", r"a\nb  1"]
    assert plain("a\nb", keep="\n") == "a\nb"
