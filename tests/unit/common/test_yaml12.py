from __future__ import annotations

from typing import Any

import pytest

from training.common import yaml12


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-05", 1e-5),
        ("1e3", 1000.0),
        ("-.5", -0.5),
        ("2.", 2.0),
        (".inf", float("inf")),
        ("0x1f", 31),
        ("0o17", 15),
        ("017", 17),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("null", None),
        ("", None),
        ("~", None),
        ("nan", "nan"),
        ("e5", "e5"),
    ],
)
def test_scalars_are_those_of_the_core_schema(text: str, value: Any) -> None:
    found = yaml12.load(f"key: {text}")["key"]
    assert (type(found), found) == (type(value), value)


def test_every_key_is_text() -> None:
    text = "{007: a, 0: b, null: c, no: d, true: e, 1.5: f, nan: g}"
    assert list(yaml12.load(text)) == ["007", "0", "null", "no", "true", "1.5", "nan"]
