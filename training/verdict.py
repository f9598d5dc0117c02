"""What the gate decided, and why: written down whether it passed or not."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.lineage import now
from training.params import Promote

if TYPE_CHECKING:
    from training.gate import Check
    from training.mlflow_store import Version

VERDICT_FILE = Path("models/verdict.json")


@dataclass(frozen=True)
class Verdict:
    """The gate's checks on a candidate. `subject` identifies what was judged: the same subject, the same verdict."""

    subject: str
    candidate: dict[str, str]
    champion: dict[str, str] | None
    test_hash: str
    checks: list[dict[str, Any]]
    forced: str | None
    created: str

    @property
    def passed(self) -> bool:
        return all(check["passed"] for check in self.checks)

    @property
    def gate(self) -> str:
        """pass, fail, or forced when it failed and was overruled."""
        return "pass" if self.passed else "forced" if self.forced else "fail"

    @property
    def reasons(self) -> list[str]:
        """What failed, with figures."""
        return [f"{one['name']}: {one['figure']} (wanted: {one['limit']})" for one in self.checks if not one["passed"]]

    def as_dict(self) -> dict[str, Any]:
        return {"schema": 1, "passed": self.passed, "gate": self.gate, "reasons": self.reasons, **asdict(self)}

    def table(self) -> str:
        """The checks as text, one a line."""
        rows = [("check", "", "found", "wanted")]
        rows += [(c["name"], "pass" if c["passed"] else "FAIL", c["figure"], c["limit"]) for c in self.checks]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return "\n".join(
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows
        )

    def write(self, path: Path = VERDICT_FILE) -> None:
        """Replace the file in one step."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        part.write_text(json.dumps(self.as_dict(), indent=2) + "\n")
        part.replace(path)


def pronounce(
    subject: str, candidate: Version, champion: Version | None, test_hash: str, checks: list[Check], forced: str | None
) -> Verdict:
    """The verdict from the checks."""
    return Verdict(
        subject=subject,
        candidate=_named(candidate),
        champion=None if champion is None else _named(champion),
        test_hash=test_hash,
        checks=[{**asdict(check), "passed": bool(check.passed)} for check in checks],
        forced=forced,
        created=now(),
    )


def _named(version: Version) -> dict[str, str]:
    return {"version": version.number, "bento_tag": version.bento_tag, "model_sha256": version.sha256}


def subject_of(candidate: Version, champion: Version | None, test_hash: str, limits: Promote) -> str:
    """Identity of a question to the gate: both models, the history of the candidate, the test split, the limits."""
    question = [
        candidate.sha256,
        candidate.tags.get("rolled_back"),
        None if champion is None else champion.sha256,
        test_hash,
        limits.model_dump(),
    ]
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()


def recall(subject: str, path: Path = VERDICT_FILE) -> Verdict | None:
    """The verdict on `subject` if it was the last one given and was not forced."""
    try:
        values = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    if values.get("subject") != subject or values.get("forced"):
        return None
    return Verdict(**{key: values[key] for key in Verdict.__dataclass_fields__})
