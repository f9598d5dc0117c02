"""Check production's pictures for drift (check), and how often that check is wrong (simulate).

`check` compares a window of the request log with the reference in the model folder (monitoring.shift). It writes its
verdict to drift.json next to the log, from which the service makes metrics. The verdict stands until a check of the
same model has enough pictures for a new one. Only checks of the served model with the parameters of params.yaml are
recorded. `simulate` measures how often the check alarms without drift, and which drifts it detects.

Exit codes of `check`: 0 no drift, 1 error, 2 wrong usage, 3 drift, 4 too few pictures.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from monitoring import request_log, served
from monitoring.finding import Finding
from monitoring.served import Served
from monitoring.shift import Sample, comparable, compare
from training import params
from training.common.command import JSON_HELP, run_command
from training.common.errors import ExpectedError
from training.common.files import write_text
from training.model.reference import Reference
from training.params import Drift, ParamsError
from training.serving import settings
from training.serving.records.log_files import DRIFT_FILE, request_files


class DriftError(ExpectedError):
    """The check cannot be made; the message says what is missing."""


@dataclass(frozen=True)
class Window:
    """Up to `most` different pictures of the request log, out of `predictions` predictions."""

    predictions: int
    records: list[dict[str, Any]]

    @classmethod
    def draw(cls, records: Iterable[dict[str, Any]], most: int, classes: Sequence[str]) -> Window:
        """A random draw that needs memory for twice `most` records only, however long the log is.

        Taken are the pictures with the smallest hashes. A picture that was sent many times counts once: the tests take
        pictures to be independent, and the reference has no duplicates either.
        """
        kept: dict[str, dict[str, Any]] = {}
        predictions = 0
        for record in records:
            predictions += 1
            if comparable(record, classes):
                kept.setdefault(record["picture_sha256"], record)
            if len(kept) > 2 * most:
                kept = dict(sorted(kept.items())[:most])
        return cls(predictions, [record for _, record in sorted(kept.items())[:most]])


def reference_of(model: Served) -> Reference:
    """The reference of the model; DriftError when it was exported without one."""
    known = Reference.load(model.folder.path)
    if known is None:
        raise DriftError(f"{model.folder.path} has no reference: train a new version, `dvc repro` exports one with it")
    return known


def log_folders(root: Path) -> list[Path]:
    """`root`, and those of its folders that hold a request log, as of replicas that do not share one.

    Raises DriftError when `root` is no folder.
    """
    if not root.is_dir():
        wrong = "is a file, not a folder" if root.exists() else "is missing"
        raise DriftError(f"{root} {wrong}: name the folder of the request log (serve.log_dir) with --log-dir")
    return [root, *sorted(path for path in root.iterdir() if path.is_dir() and request_files(path))]


def check(
    model: Served, records: Iterable[dict[str, Any]], others: Mapping[str, int], window: timedelta, chosen: Drift
) -> tuple[Finding, Sample]:
    """Compare predictions of `model` with its reference; returns the pictures that were compared, too.

    `others` are the predictions of other versions, as they are counted once all `records` were read.
    """
    known = reference_of(model)
    drawn = Window.draw(records, chosen.max_pictures, model.folder.classes)
    sample = Sample.of_log(drawn.records, model.folder.classes, known.max_short_side)
    tests = (
        compare(Sample.of_reference(known), sample, chosen.false_alarms, chosen.permutations, chosen.seed)
        if len(sample) >= chosen.min_pictures
        else []
    )
    now = datetime.now(UTC)
    finding = Finding(now, model, window, drawn.predictions, len(sample), dict(others), chosen.false_alarms, tests)
    return finding, sample


def predictions(
    folders: Iterable[Path], model: Served, since: datetime, others: Counter[str]
) -> Iterator[dict[str, Any]]:
    """What `model` answered from `since` on, by all logs in `folders`; what other models answered is counted in
    `others`, by their version."""
    for folder in folders:
        for record in request_log.read(folder, since):
            if request_log.made_by(record, model.folder.sha256):
                yield record
            else:
                others[record["version"]] += 1


def standing(path: Path, model: Served) -> dict[str, Any]:
    """The verdict on `model` in the drift.json at `path`: its `alarm`, since when, and `tests`; empty when there is
    none."""
    try:
        found = json.loads(path.read_text())
        same = (found["version"], found["model_sha256"]) == (model.version, model.folder.sha256[:16])
        since = found.get("alarm_since") or found["time"]
        return {"alarm": found["alarm"], "tests": found["tests"], "alarm_since": since} if same else {}
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # a damaged file stops no check
        return {}


def recorded(finding: Finding, former: Mapping[str, Any]) -> dict[str, Any]:
    """The values of drift.json: a finding that cannot tell leaves the `former` verdict, and an alarm that goes on began
    when it began."""
    values = finding.as_dict()
    if former and not finding.tests:
        values |= {"alarm": former["alarm"], "tests": former["tests"]}
    began = former["alarm_since"] if former.get("alarm") else values["time"]
    return values | {"alarm_since": began if values["alarm"] else None}


def unrecorded(model: Served, chosen: Drift, dry_run: bool) -> str | None:
    """Why a check is not production's own, so that its finding does not go to drift.json; None when it is."""
    if dry_run:
        return "--dry-run"
    if not model.in_service:
        return "--model names another model than the service here serves"
    changed = [name for name, value in params.load().drift if value != getattr(chosen, name)]
    return f"other parameters than in params.yaml ({', '.join(changed)})" if changed else None


def _do_check(arguments: argparse.Namespace) -> int:
    chosen = parameters(arguments)
    model = served.find(arguments.model)
    folders = log_folders(arguments.log_dir or default_log_dir())
    others: Counter[str] = Counter()
    records = predictions(folders, model, datetime.now(UTC) - arguments.window, others)
    finding, sample = check(model, records, others, arguments.window, chosen)
    reason = unrecorded(model, chosen, arguments.dry_run)
    former = {} if reason else standing(folders[0] / DRIFT_FILE, model)
    text = json.dumps(recorded(finding, former), indent=2) + "\n"
    written = [] if reason else [folder / DRIFT_FILE for folder in folders]
    for path in written:
        write_text(path, text)
    if arguments.report:
        from monitoring.report import drift_page  # it needs matplotlib, which is not in the image of the service

        write_text(arguments.report, drift_page(finding, reference_of(model), sample))
    notes = sys.stderr if arguments.json else sys.stdout
    print(text.rstrip() if arguments.json else finding.text())
    if former.get("alarm") and not finding.tests:
        text = "the former alarm stands until a check has enough pictures: a longer --window holds more"
        print(text, file=notes)
    if reason:
        print(f"not recorded in {DRIFT_FILE}: {reason}", file=notes)
    return 0 if arguments.exit_zero else finding.exit_code


def parameters(arguments: argparse.Namespace) -> Drift:
    """Those in params.yaml with the options that were given; wrong options are wrong usage."""
    known = params.load().drift
    try:
        return params.override(known, arguments)
    except ParamsError as error:
        arguments.refuse(str(error))
        raise


def default_log_dir() -> Path:
    """Where the service here keeps its request log; DriftError when it keeps none."""
    folder = settings.load(Path()).log_dir
    if folder is None:
        raise DriftError("serve.log_dir is null, so there is no request log: set it, or name a folder with --log-dir")
    return Path(folder)


def _do_simulate(arguments: argparse.Namespace) -> int:
    from monitoring import simulate  # it runs the network, and is not in the image of the service

    chosen = parameters(arguments)
    model = served.find(arguments.model)
    plan = simulate.Plan(arguments.windows, arguments.shifted_windows, tuple(arguments.size), chosen)
    rows = simulate.rows(model, reference_of(model), arguments.pictures, plan)
    print(json.dumps([row.as_dict() for row in rows], indent=2) if arguments.json else simulate.table(rows))
    return 0


def duration(text: str) -> timedelta:
    """`30m`, `24h` or `7d`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", text)
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 30m, 24h or 7d")
    try:
        span = timedelta(**{{"m": "minutes", "h": "hours", "d": "days"}[found[2]]: float(found[1])})
        datetime.now(UTC) - span
    except OverflowError:
        raise argparse.ArgumentTypeError(f"{text!r} is longer ago than dates reach: name one such as 7d") from None
    return span


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        "python -m monitoring.drift", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    text = "Compare a window of the request log with the reference of the served model."
    one = commands.add_parser("check", help=text, description=text)
    one.set_defaults(do=_do_check)
    one.add_argument("--window", type=duration, default="24h", help="how far back to look (default 24h)")
    one.add_argument("--log-dir", type=Path, help="folder of the request log (default serve.log_dir)")
    one.add_argument("--dry-run", action="store_true", help="leave LOG_DIR/drift.json, and so the metrics, alone")
    one.add_argument("--report", type=Path, help="write a page with plots to this HTML file")
    one.add_argument("--exit-zero", action="store_true", help="exit 0 also on drift and with too few pictures")
    text = "Measure how often the check alarms without drift, and which drifts it finds."
    two = commands.add_parser("simulate", help=text, description=text)
    two.set_defaults(do=_do_simulate)
    two.add_argument("--pictures", type=Path, required=True, help="class folders; the model must not know the pictures")
    two.add_argument("--windows", type=int, default=200, help="windows without drift (default 200)")
    two.add_argument("--shifted-windows", type=int, default=50, help="windows of each drift (default 50)")
    two.add_argument("--size", type=int, nargs="+", default=[200, 50], help="pictures in a window (default 200 50)")
    for command in (one, two):
        command.set_defaults(refuse=command.error)
        command.add_argument("--json", action="store_true", help=JSON_HELP)
        command.add_argument("--model", type=Path, help="model folder (default: what the service here serves)")
        params.add_arguments(command, params.Drift)
    return top


def main(words: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    if code := arguments.do(arguments):
        sys.exit(code)


if __name__ == "__main__":
    run_command(main)
