"""Use the feedback on predictions: live accuracy (report), labelled training pictures (export).

    python -m monitoring.feedback report [--since 2026-11-01] [--json]
    python -m monitoring.feedback export [--with data/raw] [--out labelled] [--since 2026-11-01]

`export` writes the captured pictures (capture.sample_rate) that have feedback to labelled/CLASS/NAME. With --with it
adds those of a class tree (train/ and test/ stay separate; labelled ones go to train/). Set data.source: folder and
data.path: labelled in params.yaml, and the pipeline trains on all of them; the candidate faces the gate as usual.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from data.errors import DataError
from data.tree import How, class_of, find_tree, folder_of
from monitoring import request_log
from training import params
from training.common.command import JSON_HELP, run_command
from training.common.files import discard, fresh
from training.common.intervals import wilson_corrected
from training.common.progress import Bar
from training.params import ParamsError
from training.serving import settings

MOMENT = "date or time such as 2026-11-24 or 2026-11-24T12:00+01:00 (UTC unless it says otherwise)"


@dataclass
class Exported:
    """What an export wrote, by class, and what it left out."""

    pictures: Counter[str] = field(default_factory=Counter)
    former: int = 0  # pictures of another folder, beside which these are
    not_kept: int = 0  # feedback on pictures that were not in the sample
    missing: int = 0  # pictures that are gone: too old, or never stored
    damaged: int = 0  # files that are not what their name says
    contradicted: int = 0  # pictures that were labelled in two ways

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self.pictures.items()))
        beside = f" beside {self.former} others" if self.former else ""
        return (
            f"{self.pictures.total()} pictures ({counts}){beside}; left out: {self.not_kept} not kept, "
            f"{self.missing} missing, {self.damaged} damaged, {self.contradicted} labelled in two ways"
        )


def latest(folder: Path, since: datetime | None = None) -> dict[str, dict[str, Any]]:
    """The feedback in `folder`, from `since` on, by request id: of several on one the last. DataError without any."""
    if not folder.is_dir():
        raise DataError(f"{folder} is missing: --log-dir, or else serve.log_dir, names the folder of the request log")
    found = {record["request_id"]: record for record in request_log.read_feedback(folder, since)}
    if not found:
        when = f" since {since.isoformat()}" if since else ""
        raise DataError(f"no feedback in {folder / request_log.FEEDBACK_FILE}{when}: nobody sent any")
    return found


@dataclass(frozen=True)
class Former:
    """Pictures to put the labelled ones beside, by name (`CLASS/NAME` or `train/CLASS/NAME`); the folder of a class."""

    pictures: Mapping[str, Path] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def find(cls, folder: Path, rename: Mapping[str, str]) -> Former:
        """The class tree in `folder`, whose folders `rename` gives other names; DataError when there is none."""
        tree = find_tree(folder, How(rename))
        inside = {
            name.rpartition("/")[0] for name in tree.pictures if not name.startswith("test/") or name.count("/") < 2
        }
        folders: dict[str, str] = {}
        for path in sorted(inside):
            name = path.rpartition("/")[2]
            label = class_of(f"{path}/", rename)
            if name == folder_of(label) or label not in folders:  # the folder called like the class, or the first
                folders[label] = path
        return cls(tree.pictures, folders)

    def folder(self, label: str) -> str:
        """Where pictures of this class go; DataError when it is no class of the tree."""
        if self.pictures and label not in self.folders:
            classes = ", ".join(sorted(self.folders))
            raise DataError(f"label {label!r} is no class of the pictures of --with ({classes}): see data.rename")
        return self.folders.get(label, folder_of(label))


def export(said: Iterable[Mapping[str, Any]], captured: str, out: Path, former: Former | None = None) -> Exported:
    """Write the labelled pictures from the store `captured`, beside those of `former`, to the folder `out`.

    DataError when it is there and not empty, when there is no picture to write, or when the store cannot be read.
    Killed, it leaves no `out`.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} exists already: remove it, or name another folder by --out")
    former, done = former or Former(), Exported()
    labels = _labels(said, done)
    targets = {label: former.folder(label) for label in sorted(set(labels.values()))}
    store, root = _open(captured)
    staged = fresh(out.with_name(out.name + ".part"))
    try:
        _link(former.pictures, staged)
        for path, label in Bar(labels.items(), "exporting", unit="picture"):
            data = _read(store, f"{root}/{path}", done)
            if data is not None:
                _write(data, staged / targets[label], PurePosixPath(path))
                done.pictures[label] += 1
        if not done.pictures:
            raise DataError(f"no picture with feedback: {done}. Does capture.sample_rate keep any in {captured}?")
        done.former = len(former.pictures)
        discard(out)
        staged.rename(out)
    finally:
        discard(staged)
    return done


def _link(pictures: Mapping[str, Path], staged: Path) -> None:
    """Have pictures of another folder in `staged` too, without a second copy where the file system can do that."""
    for name, path in Bar(pictures.items(), "linking former ones", unit="picture"):
        target = staged / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path.resolve(), target)
        except OSError:  # another file system, or one without links
            shutil.copyfile(path, target)


def _write(data: bytes, folder: Path, path: PurePosixPath) -> None:
    """Under the first 16 digits of its hash; a former picture that has the name already is never written to."""
    folder.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix.replace(".jpeg", ".jpg")
    names = itertools.chain([path.stem[:16]], (f"{path.stem}-{number}" for number in itertools.count()))
    for target in (folder / f"{name}{suffix}" for name in names):
        if not target.exists():
            target.write_bytes(data)
            return
        if target.read_bytes() == data:  # exported before, and learnt from since
            return


def _labels(said: Iterable[Mapping[str, Any]], done: Exported) -> dict[str, str]:
    """The label of each kept picture by its path; one file may have been sent many times, on several days."""
    paths: dict[str, str] = {}  # by picture
    labels: dict[str, set[str]] = {}
    for record in said:
        if not isinstance(record["captured"], str):
            done.not_kept += 1
            continue
        picture = PurePosixPath(record["captured"]).stem
        paths[picture] = record["captured"]
        labels.setdefault(picture, set()).add(record["label"])
    done.contradicted = sum(len(each) > 1 for each in labels.values())
    return {paths[picture]: next(iter(each)) for picture, each in labels.items() if len(each) == 1}


def _open(captured: str) -> tuple[Any, str]:
    try:
        store, root = fsspec.url_to_fs(captured)
    except Exception as error:  # ImportError names the driver to install; drivers raise what they like
        raise DataError(f"{captured} cannot be used: {_told(error)}") from None
    return store, root.rstrip("/")


def _read(store: Any, path: str, done: Exported) -> bytes | None:
    try:
        data: bytes = store.cat_file(path)
    except FileNotFoundError:
        done.missing += 1
        return None
    except Exception as error:  # as above: no credentials, no network, no permission
        raise DataError(f"{path} cannot be read: {_told(error)}") from None
    if hashlib.sha256(data).hexdigest() != PurePosixPath(path).stem:
        done.damaged += 1
        return None
    return data


def _told(error: Exception) -> str:
    """In one line."""
    return " ".join(str(error).split()) or type(error).__name__


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
        "accuracy_interval": list(wilson_corrected(right, pairs.total())),
        "confusion": confusion,
    }


def tell(found: Mapping[str, Any]) -> None:
    """Print a report for people."""
    for version, each in found.items():
        low, high = each["accuracy_interval"]
        wilson_corrected = f"95 % interval {low:.4f} to {high:.4f}"
        print(f"version {version}: accuracy {each['accuracy']:.4f} ({wilson_corrected}), {each['pictures']} pictures")
        for label, row in each["confusion"].items():
            print(f"  {label}: " + ", ".join(f"{count} called {predicted}" for predicted, count in row.items()))


def moment(text: str) -> datetime:
    """A date or time of ISO 8601; UTC unless it says otherwise."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no {MOMENT}") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _do_report(arguments: argparse.Namespace) -> None:
    found = report(latest(_log_dir(arguments.log_dir), arguments.since).values())
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        tell(found)


def _do_export(arguments: argparse.Namespace) -> None:
    said = latest(_log_dir(arguments.log_dir), arguments.since).values()
    captured = arguments.captured or settings.load_capture(Path(), log_dir=arguments.log_dir).url
    assert captured is not None  # there is a log folder, or `latest` would have raised
    former = None
    if arguments.beside:
        if arguments.out.resolve().is_relative_to(arguments.beside.resolve()):
            raise DataError(f"{arguments.out} lies in {arguments.beside}: name another folder by --out")
        former = Former.find(arguments.beside, params.load().data.rename)
    print(f"{arguments.out}: {export(said, captured, arguments.out, former)}")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        "python -m monitoring.feedback", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    text = "Show the live accuracy of each model version."
    one = commands.add_parser("report", help=text, description=text)
    one.set_defaults(do=_do_report)
    one.add_argument("--json", action="store_true", help=JSON_HELP)
    text = "Write the labelled pictures as a folder for data.source=folder."
    two = commands.add_parser("export", help=text, description=text)
    two.set_defaults(do=_do_export)
    two.add_argument("--out", type=Path, default="labelled", help="folder to make (default %(default)s)")
    beside = "class tree whose pictures are put into it too, such as data/raw: the model learns from both"
    two.add_argument("--with", dest="beside", metavar="FOLDER", type=Path, help=beside)
    kept = "where the kept pictures are (default capture.url, or else the folder captured in that of the request log)"
    two.add_argument("--captured", metavar="URL", help=kept)
    for each in (one, two):
        each.add_argument("--log-dir", type=Path, help="folder of the request log (default serve.log_dir)")
        since = f"leave out feedback before this {MOMENT}"
        each.add_argument("--since", type=moment, metavar="TIME", help=since)
    return top


def main() -> None:
    arguments = parser().parse_args()
    arguments.do(arguments)


def _log_dir(given: Path | None) -> Path:
    chosen = given or settings.load(Path()).log_dir
    if chosen is None:
        raise ParamsError("serve.log_dir is null: there is no request log; name a folder by --log-dir")
    return Path(chosen)


if __name__ == "__main__":
    run_command(main)
