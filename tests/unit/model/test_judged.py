from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.model.test_signing import key_pair
from training.model import judged, signing
from training.model.judged import Judgement, NotJudgedError, Subject
from training.model.pin import PROMOTION_FILE, Champion, ChampionError

SHA, TEST = "ab" * 32, "cd" * 32
SUBJECT = Subject("cats-vs-dogs", "3", SHA, TEST)
MEND = "`python -m training.promote --version 3` judges it"
FAILED = {"name": "never worse", "passed": False}


def verdict(**other: Any) -> dict[str, Any]:
    """One that passed, as the gate writes it; `other` overrides."""
    found = {
        "gate": "pass",
        "candidate": {"version": "3", "model_sha256": SHA},
        "test_hash": TEST,
        "checks": [{"name": "accuracy", "passed": True}],
        "forced": None,
        "created": "2026-01-02T00:00:00+00:00",
    }
    return found | other


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(signing.PUBLIC_KEY_VARIABLE, raising=False)


def test_what_passed_is_let_through_and_what_was_forced_says_why() -> None:
    assert judged.demand(verdict(), SUBJECT) == Judgement("pass", None, "2026-01-02T00:00:00+00:00")
    forced = judged.demand(verdict(gate="forced", forced="a demo", checks=[FAILED]), SUBJECT)
    assert (forced.gate, str(forced)) == ("forced", "forced past the gate: a demo")
    assert str(judged.demand(verdict(forced="needless"), SUBJECT)) == "passed the gate"


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "version 3 of cats-vs-dogs was moved by hand, not judged"),
        (verdict(gate="fail", checks=[FAILED]), r"was moved by hand: it failed the gate \(never worse\)"),
        (verdict(checks=[FAILED]), "says 'pass', but its checks say 'fail': it has been altered"),
        (verdict(checks=[]), "its checks say 'fail'"),
        (verdict(gate="forced"), "says 'forced', but its checks say 'pass'"),
        (verdict(checks=[{"name": "accuracy", "passed": "yes"}]), "its checks say 'fail'"),
        (verdict(candidate={"version": "2", "model_sha256": SHA}), r"not judged \(its verdict is on version 2"),
        (verdict(candidate={"version": "3", "model_sha256": "00"}), r"not judged \(its verdict is on version 3, 00"),
        (verdict(test_hash="00"), "by other test pictures"),
        (verdict(candidate=None), "the gate did not write"),
        (verdict(checks=None), "the gate did not write"),
        ({"gate": "pass"}, "the gate did not write"),
        ("pass", "the gate did not write"),
        ([], "the gate did not write"),
        (verdict(gate="fail", checks=[FAILED | {"name": "a\n\x1b[31m"}]), r"a\\n\\x1b"),
    ],
)
def test_whatever_else_is_refused_in_one_line_with_the_command(found: Any, words: str) -> None:
    with pytest.raises(NotJudgedError, match=words) as caught:
        judged.demand(found, SUBJECT)
    assert str(caught.value).endswith(MEND)
    assert len(str(caught.value).splitlines()) == 1


def test_where_a_key_is_configured_only_what_it_signed_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = key_pair(tmp_path, "key")
    monkeypatch.setenv(signing.PUBLIC_KEY_VARIABLE, str(public))
    signed = verdict(signature=signing.sign_bytes(judged.signed_part(verdict()), private))
    assert judged.demand(json.loads(json.dumps(signed, indent=2)), SUBJECT).gate == "pass"
    other = signing.sign_bytes(judged.signed_part(verdict()), key_pair(tmp_path, "other")[0])
    for forged in (
        verdict(),
        verdict(signature=None),
        verdict(signature="{}"),
        verdict(signature=["x"]),
        verdict(signature=other),
        signed | {"created": "2026-01-03T00:00:00+00:00"},
    ):
        with pytest.raises(NotJudgedError, match=rf"not signed by .*key\.pub\.pem.*signing_key, then {MEND}$"):
            judged.demand(forged, SUBJECT)


def test_the_pinned_model_needs_a_record_of_its_own(tmp_path: Path) -> None:
    pin = Champion("cats-vs-dogs", f"cats-vs-dogs:{SHA[:16]}", "3", "r" * 32, SHA)
    (tmp_path / "models").mkdir()
    with pytest.raises(ChampionError, match=r"does not say how version 3 .* was judged: run .*registry pull"):
        judged.demand_of_pin(pin, tmp_path)
    record = {"champion": {"model_sha256": SHA, "gate_test_hash": TEST}, "verdict": verdict()}
    (tmp_path / PROMOTION_FILE).write_text(json.dumps(record))
    assert judged.demand_of_pin(pin, tmp_path).gate == "pass"
    (tmp_path / PROMOTION_FILE).write_text(json.dumps(record | {"verdict": verdict(test_hash="00")}))
    with pytest.raises(NotJudgedError, match="other test pictures"):
        judged.demand_of_pin(pin, tmp_path)
