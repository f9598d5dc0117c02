"""What a drift check found: its tests, its verdict, and how both read in a file and to people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from monitoring.served import Served
from monitoring.shift import Test

DRIFT, TOO_FEW = 3, 4  # exit codes


@dataclass(frozen=True)
class Finding:
    """What a check found; without tests there were too few pictures. `others`: the predictions of other versions in the
    same window."""

    time: datetime
    model: Served
    window: timedelta
    predictions: int
    pictures: int
    others: Mapping[str, int]
    false_alarms: float
    tests: Sequence[Test]

    @property
    def alarms(self) -> list[str]:
        return [test.name for test in self.tests if test.alarm]

    @property
    def exit_code(self) -> int:
        return TOO_FEW if not self.tests else DRIFT if self.alarms else 0

    def as_dict(self) -> dict[str, Any]:
        """The values of drift.json."""
        return {
            "time": self.time.isoformat(timespec="seconds"),
            "name": self.model.name,
            "version": self.model.version,
            "model_sha256": self.model.folder.sha256[:16],
            "window_hours": self.window.total_seconds() / 3600,
            "predictions": self.predictions,
            "pictures": self.pictures,
            "enough_pictures": bool(self.tests),
            "false_alarms": self.false_alarms,
            "alarm": bool(self.alarms),
            "tests": [test.as_dict() for test in self.tests],
        }

    def others_text(self) -> str:
        """How many predictions of which other versions there are, and what to do about them; empty without any."""
        if not self.others:
            return ""
        counts = ", ".join(f"{count} of version {version}" for version, count in sorted(self.others.items()))
        text = f"predictions of other versions in the window: {counts}"
        if not self.model.in_service:
            return text
        return (
            f"{text}; if they go on, and not from a canary, "
            f"restart the service: until then it does not serve version {self.model.version}"
        )

    def text(self) -> str:
        """For people: a line for each test, and the verdict."""
        head = f"version {self.model.version}: {self.pictures} pictures of {self.predictions} predictions"
        others = [self.others_text()] if self.others else []
        if not self.tests:
            return "\n".join([f"{head}, too few to tell whether they drifted (drift.min_pictures)", *others])
        lines = [f"{head}; p-values up to {self.tests[0].threshold:.4f} alarm", *others]
        lines += [
            f"  {test.name:<10}  distance {test.statistic:.3f}  p {test.p_value:.4f}{'  DRIFT' * test.alarm}"
            for test in self.tests
        ]
        return "\n".join([*lines, f"drift: {', '.join(self.alarms)}" if self.alarms else "no drift"])
