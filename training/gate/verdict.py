"""What the gate decided, and why: written down whether it passed or not."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.common.files import write_text
from training.model import judged, signing
from training.model.judged import FAIL, FORCED, PASS
from training.model.lineage import now
from training.params import Promote

if TYPE_CHECKING:
    from training.gate.checks import Check
    from training.registry.mlflow_store import Version

VERDICT_FILE = Path("models/verdict.json")


@dataclass(frozen=True)
class Name:
    """A version by all its names."""

    version: str
    bento_tag: str
    model_sha256: str

    @classmethod
    def of(cls, version: Version) -> Name:
        return cls(version.number, version.bento_tag, version.sha256)

    def __str__(self) -> str:
        return f"version {self.version} ({self.bento_tag})"


@dataclass(frozen=True)
class Verdict:
    """The gate's checks on a candidate, and what they depend on: the models, the test split, the limits.

    `advice`: what would probably help with the checks that failed (training.gate.advice). `signature`: by
    register.signing_key, of all the rest; every reader checks it where MODEL_PUBLIC_KEY is set (training.model.judged).
    """

    candidate: Name
    champion: Name | None
    test_hash: str
    limits: dict[str, Any]
    checks: list[dict[str, Any]]
    advice: list[str]
    forced: str | None
    created: str
    signature: str | None = None

    @property
    def passed(self) -> bool:
        return all(check["passed"] for check in self.checks)

    @property
    def gate(self) -> str:
        """pass, fail, or forced when it failed and was overruled."""
        return PASS if self.passed else FORCED if self.forced else FAIL

    @property
    def reasons(self) -> list[str]:
        """What failed, with figures."""
        return [f"{one['name']}: {one['figure']} (wanted: {one['limit']})" for one in self.checks if not one["passed"]]

    def as_dict(self) -> dict[str, Any]:
        return {"schema": 1, "passed": self.passed, "gate": self.gate, "reasons": self.reasons, **asdict(self)}

    def signed(self, key: Path) -> Verdict:
        """The same with a signature by the private key at `key`; SigningError when it cannot be read."""
        return replace(self, signature=signing.sign_bytes(judged.signed_part(self.as_dict()), key))

    def table(self) -> str:
        """The checks as text, one a line."""
        rows = [("check", "", "result", "required")]
        rows += [(c["name"], "pass" if c["passed"] else "FAIL", c["figure"], c["limit"]) for c in self.checks]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return "\n".join(
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows
        )

    def write(self, path: Path = VERDICT_FILE) -> None:
        """Replace the file in one step."""
        write_text(path, json.dumps(self.as_dict(), indent=2) + "\n")


def pronounce(
    candidate: Version,
    champion: Version | None,
    test_hash: str,
    limits: Promote,
    checks: list[Check],
    advice: list[str],
    forced: str | None,
) -> Verdict:
    """The verdict from the checks."""
    return Verdict(
        candidate=Name.of(candidate),
        champion=None if champion is None else Name.of(champion),
        test_hash=test_hash,
        limits=limits.model_dump(),
        checks=[{**asdict(check), "passed": bool(check.passed)} for check in checks],
        advice=advice,
        forced=forced,
        created=now(),
    )


def former_verdict(
    candidate_sha256: str, champion_sha256: str | None, test_hash: str, limits: Promote, path: Path = VERDICT_FILE
) -> Verdict | None:
    """The last verdict, if it failed a candidate that now stands before the same champion, pictures and limits.

    Only a failure is recalled: it can do no harm, whereas a pass must be earned anew.
    """
    try:
        values = json.loads(path.read_text())
        champion = Name(**values["champion"]) if values["champion"] else None
        plain = {key: values[key] for key in ("test_hash", "limits", "checks", "advice", "forced", "created")}
        verdict = Verdict(candidate=Name(**values["candidate"]), champion=champion, **plain)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    subject = (verdict.candidate.model_sha256, champion.model_sha256 if champion else None, verdict.test_hash)
    same = subject == (candidate_sha256, champion_sha256, test_hash) and verdict.limits == limits.model_dump()
    return verdict if same and verdict.gate == FAIL else None
