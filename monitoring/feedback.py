"""What people said of predictions: live accuracy by model version, and labelled pictures to train on.

    python -m monitoring.feedback report [--since 2026-11-01] [--json]
    python -m monitoring.feedback export [--out labelled] [--since 2026-11-01]

`export` writes the kept pictures (capture.sample_rate) that have feedback as labelled/CLASS/NAME. With data.source:
folder and data.path: labelled in params.yaml the pipeline trains on them, and the candidate meets the gate like any.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from tqdm import tqdm

from data.errors import DataError
from data.files import discard, fresh
from monitoring import request_log
from training.command import run_command
from training.params import ParamsError
from training.serving import settings
from training.serving.feedback_store import interval


@dataclass
class Exported:
    """What an export wrote, by class, and what it left out."""

    pictures: Counter[str] = field(default_factory=Counter)
    not_kept: int = 0  # feedback on pictures that were not in the sample
    missing: int = 0  # pictures that are gone: too old, or never stored
    damaged: int = 0  # files that are not what their name says
    contradicted: int = 0  # pictures that were labelled in two ways

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self.pictures.items()))
        return (
            f"{self.pictures.total()} pictures ({counts}); left out: {self.not_kept} not kept, {self.missing} missing, "
            f"{self.damaged} damaged, {self.contradicted} labelled in two ways"
        )


def latest(folder: Path, since: datetime | None = None) -> dict[str, dict[str, Any]]:
    """The feedback in `folder`, from `since` on, by request id: of several on one the last. DataError without any."""
    found = {record["request_id"]: record for record in request_log.read_feedback(folder, since)}
    if not found:
        when = f" since {since.isoformat()}" if since else ""
        raise DataError(f"no feedback in {folder / request_log.FEEDBACK_FILE}{when}: nobody sent any")
    return found


def export(said: Iterable[Mapping[str, Any]], captured: str, out: Path) -> Exported:
    """Write the labelled pictures from the store `captured` to `out`, which must not exist or be empty.

    DataError when it does, or when there is no picture to write. Killed, it leaves no `out`.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} exists already: name another folder")
    done = Exported()
    staged = fresh(out.with_name(out.name + ".part"))
    for path, label in tqdm(_labels(said, done).items(), "export", unit="picture", disable=None):
        data = _read(captured, path, done)
        if data is not None:
            name = PurePosixPath(path)
            target = staged / label / f"{name.stem[:16]}{name.suffix.replace('.jpeg', '.jpg')}"
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(data)
            done.pictures[label] += 1
    if not done.pictures:
        discard(staged)
        raise DataError(f"no picture with feedback: {done}. Does capture.sample_rate keep any in {captured}?")
    discard(out)
    staged.rename(out)
    return done


def _labels(said: Iterable[Mapping[str, Any]], done: Exported) -> dict[str, str]:
    """The label of each kept picture by its path; one file may have been sent many times, on several days."""
    paths: dict[str, str] = {}  # by picture
    labels: dict[str, set[str]] = {}
    for record in said:
        if record["captured"] is None:
            done.not_kept += 1
            continue
        picture = PurePosixPath(record["captured"]).stem
        paths[picture] = record["captured"]
        labels.setdefault(picture, set()).add(record["label"])
    done.contradicted = sum(len(each) > 1 for each in labels.values())
    return {paths[picture]: next(iter(each)) for picture, each in labels.items() if len(each) == 1}


def _read(captured: str, path: str, done: Exported) -> bytes | None:
    try:
        with fsspec.open(f"{captured}/{path}", "rb") as file:
            data: bytes = file.read()
    except FileNotFoundError:
        done.missing += 1
        return None
    if hashlib.sha256(data).hexdigest() != PurePosixPath(path).stem:
        done.damaged += 1
        return None
    return data


def report(said: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """By model version: number of labelled predictions, accuracy with its 95 % interval, and which class was taken
    for which: {label: {predicted: number}}."""
    versions: dict[str, Counter[tuple[str, str]]] = {}
    for record in said:
        versions.setdefault(record["version"], Counter())[record["label"], record["predicted"]] += 1
    return {version: _described(pairs) for version, pairs in versions.items()}


def _described(pairs: Counter[tuple[str, str]]) -> dict[str, Any]:
    right = sum(count for (label, predicted), count in pairs.items() if label == predicted)
    confusion: dict[str, dict[str, int]] = {}
    for (label, predicted), count in sorted(pairs.items()):
        confusion.setdefault(label, {})[predicted] = count
    return {
        "pictures": pairs.total(),
        "accuracy": right / pairs.total(),
        "accuracy_interval": list(interval(right, pairs.total())),
        "confusion": confusion,
    }


def tell(found: Mapping[str, Any]) -> None:
    """Print a report for people."""
    for version, each in found.items():
        low, high = each["accuracy_interval"]
        interval = f"95 % interval {low:.4f} to {high:.4f}"
        print(f"version {version}: accuracy {each['accuracy']:.4f} ({interval}), {each['pictures']} pictures")
        for label, row in each["confusion"].items():
            print(f"  {label}: " + ", ".join(f"{count} called {predicted}" for predicted, count in row.items()))


def moment(text: str) -> datetime:
    """A date or time of ISO 8601; UTC unless it says otherwise."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def main() -> None:
    parser = argparse.ArgumentParser("python -m monitoring.feedback", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("report", help="live accuracy by model version")
    one.add_argument("--json", action="store_true", help="print JSON")
    two = commands.add_parser("export", help="write the labelled pictures as a folder that data.source=folder takes")
    two.add_argument("--out", type=Path, default="labelled", help="folder to make (default %(default)s)")
    two.add_argument("--captured", help="where the kept pictures are (default capture.url)")
    for each in (one, two):
        each.add_argument("--log-dir", type=Path, help="folder of the request log (default serve.log_dir)")
        each.add_argument("--since", type=moment, help="leave out feedback before this date")
    arguments = parser.parse_args()
    said = latest(_log_dir(arguments.log_dir), arguments.since).values()
    if arguments.command == "export":
        captured = arguments.captured or settings.load_capture(Path(), log_dir=arguments.log_dir).url
        assert captured is not None  # there is a log folder, or `latest` would have raised
        print(f"{arguments.out}: {export(said, captured, arguments.out)}")
    elif arguments.json:
        print(json.dumps(report(said), indent=2))
    else:
        tell(report(said))


def _log_dir(given: Path | None) -> Path:
    chosen = given or settings.load(Path()).log_dir
    if chosen is None:
        raise ParamsError("serve.log_dir is null: there is no request log; name a folder by --log-dir")
    return Path(chosen)


if __name__ == "__main__":
    run_command(main)
