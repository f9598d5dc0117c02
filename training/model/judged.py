"""Did the gate let this model through? Every reader asks here before it believes the alias `champion`.

What counts is the gate's own record among the artifacts of the version's run (gate/admitted.json, verdict.json), which
models/promotion.json repeats for those that cannot ask the registry. Tags do not count, since anybody can write one on
MLflow's page. The record names version, model and test pictures, so that of another version does not pass. Where
MODEL_PUBLIC_KEY is set, it must be signed by that key as well; without a key it is as safe as the artifact store.

Only the standard library is imported: this module travels into the Bento.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.common.table import plain
from training.model import pin as pin_file
from training.model import signing, tracking
from training.model.folder import ModelFolderError
from training.model.pin import PIN_FILE, PROMOTION_FILE, Champion, ChampionError

PASS, FORCED, FAIL = "pass", "forced", "fail"
TEST_HASH_TAG = "gate_test_hash"  # of a version in MLflow: the test pictures that it was judged on


class NotJudgedError(ChampionError):
    """The gate did not let this version through; the message names the command that has it judged."""


@dataclass(frozen=True)
class Subject:
    """What a verdict must be about. `test_hash` None: on whatever test pictures."""

    name: str
    version: str
    model_sha256: str
    test_hash: str | None = None

    @property
    def mend(self) -> str:
        return f"`python -m training.promote --version {self.version}` judges it"

    def refusal(self, what: str) -> NotJudgedError:
        return NotJudgedError(plain(f"version {self.version} of {self.name} {what}: {self.mend}"))


@dataclass(frozen=True)
class Judgement:
    """The gate let it through, by itself or because somebody overruled it: then `forced` says why."""

    gate: str
    forced: str | None
    judged: str

    def __str__(self) -> str:
        return f"forced past the gate: {self.forced}" if self.forced else "passed the gate"


def demand(verdict: Any, subject: Subject) -> Judgement:
    """The gate's judgement on `subject` by its record `verdict` (None: there is none). NotJudgedError unless the gate
    let it through; SigningError when MODEL_PUBLIC_KEY cannot be used."""
    found = read(verdict, subject)
    key = os.environ.get(signing.PUBLIC_KEY_VARIABLE)
    if key and isinstance(verdict, Mapping):
        try:
            signing.verify_bytes(signed_part(verdict), str(verdict.get("signature") or ""), Path(key))
        except ModelFolderError:
            unsigned = f"has a verdict that is not signed by {key}, as {signing.PUBLIC_KEY_VARIABLE} demands"
            raise NotJudgedError(
                f"version {subject.version} of {subject.name} {unsigned}: set register.signing_key, then {subject.mend}"
            ) from None
    return found


def read(verdict: Any, subject: Subject) -> Judgement:
    """The same without a look at the signature."""
    if verdict is None:
        raise subject.refusal("was moved by hand, not judged")
    try:
        version, sha256 = (str(verdict["candidate"][key]) for key in ("version", "model_sha256"))
        checks, said, judged = list(verdict["checks"]), verdict["gate"], verdict["created"]
        failed = [str(one["name"]) for one in checks if one["passed"] is not True]
        forced, test_hash = verdict["forced"], str(verdict["test_hash"])
    except (KeyError, TypeError):
        raise subject.refusal("has a verdict that the gate did not write") from None
    if (version, sha256) != (subject.version, subject.model_sha256):
        raise subject.refusal(f"was moved by hand, not judged (its verdict is on version {version}, {sha256[:8]})")
    if subject.test_hash is not None and test_hash != subject.test_hash:
        raise subject.refusal(f"has a verdict by other test pictures ({test_hash[:8]}, not {subject.test_hash[:8]})")
    gate = FAIL if not checks else PASS if not failed else FORCED if forced else FAIL
    if said != gate:
        raise subject.refusal(f"has a verdict that says {said!r}, but its checks say {gate!r}: it has been altered")
    if gate == FAIL:
        raise subject.refusal(f"was moved by hand: it failed the gate ({', '.join(failed)})")
    return Judgement(gate, str(forced) if gate == FORCED else None, str(judged))


def signed_part(verdict: Mapping[str, Any]) -> bytes:
    """What is signed of a verdict: all of it but the signature, in one spelling."""
    rest = {key: value for key, value in verdict.items() if key != "signature"}
    return json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()


def of_promotion(pin: Champion, root: Path = Path()) -> tuple[Any, Subject]:
    """The verdict on the pinned model in models/promotion.json, and what it must be about; ChampionError without."""
    promotion = pin_file.read_promotion(pin.model_sha256, root / PROMOTION_FILE)
    if promotion is None:
        raise ChampionError(
            f"{PROMOTION_FILE} does not say how version {pin.mlflow_version} ({pin.bento_tag}), which {PIN_FILE} pins, "
            "was judged: run `python -m training.registry pull`"
        )
    test_hash = promotion["champion"].get(TEST_HASH_TAG)
    return promotion.get("verdict"), Subject(pin.name, pin.mlflow_version, pin.model_sha256, test_hash)


def demand_of_pin(pin: Champion, root: Path = Path()) -> Judgement:
    """The judgement on the pinned model, by models/promotion.json; NotJudgedError or ChampionError as above."""
    return demand(*of_promotion(pin, root))


def confirm(pin: Champion, root: Path = Path()) -> Judgement:
    """That the pinned model may be built or rolled out: the gate let it through, and the registry, where it can be
    asked, still calls it champion. Raises as `demand_of_pin` and tracking.check_against_registry do."""
    found = demand_of_pin(pin, root)
    tracking.check_against_registry(pin, root)
    return found
