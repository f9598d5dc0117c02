"""Do the pictures that are sent still look like those the served model was validated on?

`check` compares a window of the request log with the reference in the model folder (monitoring.shift says how), and
leaves its finding beside the log as drift.json, from which the service makes metrics. `simulate` shows how often the
check alarms without drift, and which drifts of which size it finds.

Exit codes of `check`: 0 no drift, 1 an error, 2 wrong usage, 3 drift, 4 too few pictures to tell.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from monitoring import request_log, served
from monitoring.served import Served
from monitoring.shift import Sample, Test, compare
from training import params
from training.champion import replace_text
from training.command import run_command
from training.errors import ExpectedError
from training.params import Drift
from training.reference import Reference
from training.serving import settings
from training.serving.log_files import DRIFT_FILE, request_files

DRIFT, TOO_FEW = 3, 4  # exit codes


class DriftError(ExpectedError):
    """The check cannot be made; the message says what is missing."""


@dataclass(frozen=True)
class Window:
    """Up to `most` different pictures of the request log, out of `predictions` predictions."""

    predictions: int
    records: list[dict[str, Any]]

    @classmethod
    def draw(cls, records: Iterable[dict[str, Any]], most: int) -> Window:
        """A random draw that needs memory for twice `most` records only, however long the log is.

        Taken are the pictures with the smallest hashes. A picture that was sent many times counts once: the tests take
        pictures to be independent, and the reference has no duplicates either.
        """
        kept: dict[str, dict[str, Any]] = {}
        predictions = 0
        for record in records:
            predictions += 1
            if record["sketch"] is not None:
                kept.setdefault(record["picture_sha256"], record)
            if len(kept) > 2 * most:
                kept = dict(sorted(kept.items())[:most])
        return cls(predictions, [record for _, record in sorted(kept.items())[:most]])


@dataclass(frozen=True)
class Finding:
    """What a check found; without tests there were too few pictures."""

    time: datetime
    model: Served
    window: timedelta
    predictions: int
    pictures: int
    false_alarms: float
    tests: Sequence[Test]

    @property
    def alarms(self) -> list[str]:
        return [test.name for test in self.tests if test.alarm]

    @property
    def exit_code(self) -> int:
        return TOO_FEW if not self.tests else DRIFT if self.alarms else 0

    def as_json(self) -> str:
        """The text of drift.json."""
        values = {
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
        return json.dumps(values, indent=2) + "\n"

    def text(self) -> str:
        """For people: a line for each test, and the verdict."""
        head = f"version {self.model.version}: {self.pictures} pictures of {self.predictions} predictions"
        if not self.tests:
            return f"{head}, too few to tell whether they drifted (drift.min_pictures)"
        lines = [f"{head}; p-values up to {self.tests[0].threshold:.4f} alarm"]
        lines += [
            f"  {test.name:<10}  distance {test.statistic:.3f}  p {test.p_value:.4f}{'  DRIFT' * test.alarm}"
            for test in self.tests
        ]
        return "\n".join([*lines, f"drift: {', '.join(self.alarms)}" if self.alarms else "no drift"])


def reference_of(model: Served) -> Reference:
    """The reference of the model; DriftError when it was exported without one."""
    known = Reference.load(model.folder.path)
    if known is None:
        raise DriftError(f"{model.folder.path} has no reference: train a new version, `dvc repro` exports one with it")
    return known


def log_folders(root: Path) -> list[Path]:
    """`root`, and those of its folders that hold a request log, as of replicas that do not share one.

    Raises DriftError when `root` is missing.
    """
    if not root.is_dir():
        raise DriftError(f"{root} is missing: name the folder of the request log (serve.log_dir) with --log-dir")
    return [root, *sorted(path for path in root.iterdir() if path.is_dir() and request_files(path))]


def check(model: Served, records: Iterable[dict[str, Any]], window: timedelta, chosen: Drift) -> tuple[Finding, Sample]:
    """Compare predictions of `model` with its reference; returns the pictures that were compared, too."""
    known = reference_of(model)
    drawn = Window.draw(records, chosen.max_pictures)
    sample = Sample.of_log(drawn.records, model.folder.classes, known.max_short_side)
    tests = (
        compare(Sample.of_reference(known), sample, chosen.false_alarms, chosen.permutations, chosen.seed)
        if len(sample) >= chosen.min_pictures
        else []
    )
    now = datetime.now(UTC)
    return Finding(now, model, window, drawn.predictions, len(sample), chosen.false_alarms, tests), sample


def predictions(folders: Iterable[Path], model: Served, since: datetime) -> Iterator[dict[str, Any]]:
    """What `model` answered from `since` on, by all logs in `folders`."""
    for folder in folders:
        yield from request_log.read(folder, since, model_sha256=model.folder.sha256)


def do_check(arguments: argparse.Namespace) -> int:
    model = served.find(arguments.model)
    folders = log_folders(arguments.log_dir or default_log_dir())
    since = datetime.now(UTC) - arguments.window
    chosen = params.override(params.load().drift, arguments)
    finding, sample = check(model, predictions(folders, model, since), arguments.window, chosen)
    for path in [folder / DRIFT_FILE for folder in folders] + ([arguments.json] if arguments.json else []):
        replace_text(path, finding.as_json())
    if arguments.report:
        from monitoring.report import drift_page  # it needs matplotlib, which is not in the image of the service

        replace_text(arguments.report, drift_page(finding, reference_of(model), sample))
    print(finding.text())
    return 0 if arguments.exit_zero else finding.exit_code


def default_log_dir() -> Path:
    """Where the service here keeps its request log; DriftError when it keeps none."""
    folder = settings.load(Path()).log_dir
    if folder is None:
        raise DriftError("serve.log_dir is null, so there is no request log: set it, or name a folder with --log-dir")
    return Path(folder)


def do_simulate(arguments: argparse.Namespace) -> int:
    from monitoring import simulate  # it runs the network, and is not in the image of the service

    model = served.find(arguments.model)
    chosen = params.override(params.load().drift, arguments)
    plan = simulate.Plan(arguments.windows, arguments.shifted_windows, tuple(arguments.size), chosen)
    print(simulate.table(model, reference_of(model), arguments.pictures, plan))
    return 0


def duration(text: str) -> timedelta:
    """`30m`, `24h` or `7d`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", text)
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 30m, 24h or 7d")
    return timedelta(**{{"m": "minutes", "h": "hours", "d": "days"}[found[2]]: float(found[1])})


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        "python -m monitoring.drift", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(required=True)
    text = "Compare a window of the request log with the reference of the served model."
    one = commands.add_parser("check", help=text, description=text)
    one.set_defaults(do=do_check)
    one.add_argument("--window", type=duration, default="24h", help="how far back to look (default 24h)")
    one.add_argument("--log-dir", type=Path, help="folder of the request log (default serve.log_dir)")
    one.add_argument("--json", type=Path, help="write the finding to this file too, not only to LOG_DIR/drift.json")
    one.add_argument("--report", type=Path, help="write a page with plots to this HTML file")
    one.add_argument("--exit-zero", action="store_true", help="exit 0 also on drift and with too few pictures")
    text = "How often does the check alarm without drift, and what does it find? Prints a table."
    two = commands.add_parser("simulate", help=text, description=text)
    two.set_defaults(do=do_simulate)
    two.add_argument("--pictures", type=Path, required=True, help="class folders; the model must not know the pictures")
    two.add_argument("--windows", type=int, default=200, help="windows without drift (default 200)")
    two.add_argument("--shifted-windows", type=int, default=50, help="windows of each drift (default 50)")
    two.add_argument("--size", type=int, nargs="+", default=[200, 50], help="pictures in a window (default 200 50)")
    for command in (one, two):
        command.add_argument("--model", type=Path, help="model folder (default: what the service here serves)")
        params.add_arguments(command, params.Drift)
    return top


def main(words: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    if code := arguments.do(arguments):
        sys.exit(code)


if __name__ == "__main__":
    run_command(main)
