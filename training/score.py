"""Score many pictures on all cores: every answer in a table, and the accuracy if labels are known.

    python -m training.score FOLDER                        CLASS/NAME.jpg: accuracy with its interval
    python -m training.score FOLDER --out scores.parquet   every answer too; without class folders only the answers
    python -m training.score list.csv --out scores.csv     a table with a column `path`, and `label` or `class` if known

Pictures are read as the service reads them. One that the service would reject has the reason in the column `refused`.
Folder names become class names as in params.yaml (data.rename). An interrupted run continues when started again.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.errors import DataError
from data.tree import SUFFIXES, How, class_of, find_tree
from training import params
from training.common.command import run_command
from training.common.cores import usable_cores
from training.common.files import replacing
from training.common.intervals import wilson
from training.common.progress import Bar
from training.model.classifier import Classifier
from training.model.columns import SCORED, of_classes
from training.model.folder import MODEL_FOLDER, ModelFolder
from training.model.picture.header import PictureError

LABEL_COLUMNS = ("label", "class")  # of a manifest
CHUNK = 256  # pictures; that many are lost at most when a run is cut off
WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    ".csv": lambda frame, path: frame.to_csv(path, index=False, lineterminator="\n"),
    ".parquet": lambda frame, path: frame.to_parquet(path, index=False),
}


@dataclass(frozen=True)
class PictureFile:
    """A file, and its class where that is known."""

    path: Path
    label: str | None


def score(folder: ModelFolder, pictures: Sequence[PictureFile], kept: Path | None = None) -> pd.DataFrame:
    """A row for each picture, in order: SCORED and a float32 for each class.

    What is done is kept in the folder `kept`, if one is named, and found there by the next run on the same.
    """
    classifier = Classifier(folder)
    parts = Parts.open(kept, identity(folder, pictures))
    with ThreadPoolExecutor(usable_cores()) as pool, Bar(total=len(pictures), desc="scoring", unit="picture") as bar:
        for start in range(0, len(pictures), CHUNK):
            chunk = pictures[start : start + CHUNK]
            if start not in parts.done:
                found = pool.map(lambda picture: answer(classifier, picture.path), chunk)
                parts.add(start, table(folder.classes, chunk, list(found)))
            bar.update(len(chunk))
    return parts.all()


def answer(classifier: Classifier, path: Path) -> NDArray[np.float32] | str:
    """Probabilities float32 [classes], or the code of the reason why the picture is refused."""
    try:
        found: NDArray[np.float32] = classifier.predict_bytes([path.read_bytes()])[0]
    except PictureError as error:
        return error.code
    except OSError:
        return "unreadable"
    return found


def table(
    classes: Sequence[str], pictures: Sequence[PictureFile], answers: Sequence[NDArray[np.float32] | str]
) -> pd.DataFrame:
    """The answers as rows; a refused picture has neither prediction nor probabilities."""
    none = np.full(len(classes), np.nan, dtype=np.float32)
    values = np.stack([none if isinstance(one, str) else one for one in answers])
    columns = {
        "path": [str(picture.path) for picture in pictures],
        "label": [picture.label for picture in pictures],
        "prediction": [None if isinstance(one, str) else classes[int(one.argmax())] for one in answers],
        "refused": [one if isinstance(one, str) else None for one in answers],
    }
    texts = pd.DataFrame(columns, dtype="string")
    return pd.concat([texts, pd.DataFrame(values, columns=of_classes(classes, SCORED))], axis=1)


@dataclass
class Parts:
    """Finished chunks by the number of their first picture: in memory, and as files of `folder` where there is one."""

    folder: Path | None
    done: dict[int, pd.DataFrame]

    @classmethod
    def open(cls, folder: Path | None, identity: str) -> Parts:
        """The chunks that an earlier run of the same left; those of another one are deleted."""
        if folder is None:
            return cls(None, {})
        mark = folder / identity
        if not mark.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            mark.touch()
        done = {int(path.stem): pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))}
        if done:
            print(f"continuing: {sum(map(len, done.values())):,} pictures were scored before")
        return cls(folder, done)

    def add(self, start: int, rows: pd.DataFrame) -> None:
        self.done[start] = rows
        if self.folder:
            replace(self.folder / f"{start}.parquet", rows)

    def all(self) -> pd.DataFrame:
        return pd.concat([self.done[start] for start in sorted(self.done)], ignore_index=True)


def identity(folder: ModelFolder, pictures: Sequence[PictureFile]) -> str:
    """What the scores depend on, as a hash: the model, and each file by its name, size and time of change."""
    known = hashlib.sha256(f"{folder.sha256} {folder.preprocessing} {CHUNK}\n".encode())
    for picture in Bar(pictures, "listing", unit="picture", leave=False):
        try:
            file = picture.path.stat()
        except OSError as error:
            raise DataError(
                f"{picture.path} cannot be read ({error.strerror}): is the folder or --root right?"
            ) from None
        known.update(f"{picture.path} {picture.label} {file.st_size} {file.st_mtime_ns}\n".encode())
    return known.hexdigest()[:16]


def replace(path: Path, rows: pd.DataFrame) -> None:
    """Write a table; `path` holds the former one or this one, never a part."""
    with replacing(path) as part:
        WRITERS[path.suffix](rows, part)


def find(source: Path, root: Path | None, rename: dict[str, str], classes: Sequence[str]) -> list[PictureFile]:
    """The pictures of a manifest, of a class tree, or of any folder; DataError when there are none."""
    if source.is_file():
        return listed(source, root or source.parent)
    try:
        pictures = labelled(source, rename)
    except DataError as error:
        return _unlabelled(source, str(error))
    if {picture.label for picture in pictures} & set(classes):
        return pictures
    return _unlabelled(source, f"none of its folders is called {' or '.join(classes)}")


def labelled(root: Path, rename: dict[str, str]) -> list[PictureFile]:
    """The pictures of a class tree with their class names; DataError when there is no such tree."""
    return with_labels(find_tree(root, How(rename)).pictures, rename)


def with_labels(names: Mapping[str, Path], rename: Mapping[str, str]) -> list[PictureFile]:
    """Pictures of a class tree by name (`CLASS/NAME` or `train/CLASS/NAME`), with their class names."""
    return [PictureFile(path, class_of(name, rename)) for name, path in names.items()]


def _unlabelled(root: Path, reason: str) -> list[PictureFile]:
    """All pictures under `root`, sorted; `reason` is why they have no labels."""
    files = (path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    paths = sorted(path for path in files if not hidden(path.relative_to(root)))
    if not paths:
        raise DataError(f"there are no pictures in {root}: {reason}")
    print(f"without labels: {reason}")
    return [PictureFile(path, None) for path in paths]


def hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def listed(manifest: Path, root: Path) -> list[PictureFile]:
    """The pictures of a CSV file; a path that is not absolute starts at `root`."""
    with manifest.open(newline="", encoding="utf-8-sig") as file:
        try:
            rows = list(csv.DictReader(file))
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{manifest} is not a CSV file in UTF-8: {error}") from None
    if not rows or not all(row.get("path") for row in rows):
        raise DataError(f"{manifest} needs a first line that names its columns, and in each other line a `path`")
    label = next((name for name in LABEL_COLUMNS if name in rows[0]), None)
    return [PictureFile(root / row["path"], (row[label] or None) if label else None) for row in rows]


def summary(scores: pd.DataFrame) -> str:
    """Accuracy over the pictures with a label (a refused one counts as wrong) with its interval, or the counts."""
    refused = f"{len(scores)} pictures, {int(scores['refused'].notna().sum())} refused"
    known = scores[scores["label"].notna()]
    if known.empty:
        counts = scores["prediction"].value_counts().sort_index()
        return ", ".join([*(f"{count} {name}" for name, count in counts.items()), refused])
    right = int((known["prediction"] == known["label"]).sum())
    low, high = wilson(right, len(known))
    return f"accuracy {right / len(known):.4f} (95 % interval {low:.4f} to {high:.4f}), {refused}"


def table_file(text: str) -> Path:
    path = Path(text)
    if path.suffix not in WRITERS:
        raise argparse.ArgumentTypeError(f"{text!r} does not end in {' or '.join(WRITERS)}")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m training.score", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, metavar="FOLDER|MANIFEST", help="a folder of pictures, or a CSV list")
    parser.add_argument("--root", type=Path, help="where the manifest's paths start (default: its own folder)")
    parser.add_argument("--model", type=Path, default=MODEL_FOLDER, help=f"model folder (default {MODEL_FOLDER})")
    parser.add_argument("--out", type=table_file, help="write every answer to this .csv or .parquet file")
    arguments = parser.parse_args()
    folder = ModelFolder.open(arguments.model)
    pictures = find(arguments.source, arguments.root, params.load().data.rename, folder.classes)
    out: Path | None = arguments.out
    kept = out and out.with_name(f".{out.name}.parts")
    scores = score(folder, pictures, kept)
    if out and kept:
        replace(out, scores)
        shutil.rmtree(kept)
    print(summary(scores))


if __name__ == "__main__":
    run_command(main)
