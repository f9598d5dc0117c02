"""Score a folder of labelled pictures, `CLASS/NAME.jpg`, with a model folder: accuracy with its interval, and a CSV.

The pictures are read as the service reads them. Folder names become class names as in params.yaml (data.rename).
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data.errors import DataError
from data.tree import find_tree
from training import params
from training.command import run_command
from training.inference import MODEL_FOLDER, Classifier, ModelFolder, ModelFolderError, usable_cores
from training.metrics import accuracy_interval
from training.preprocess import PictureError


@dataclass(frozen=True)
class Scored:
    """One picture: `probabilities` float32 [classes], or None with the reason why it was refused."""

    path: Path
    label: str
    probabilities: NDArray[np.float32] | None
    refused: str = ""


def score(folder: ModelFolder, pictures: Sequence[tuple[Path, str]]) -> list[Scored]:
    """The answers for pictures with their labels, in order, on all cores."""
    classifier = Classifier(folder)

    def one(picture: tuple[Path, str]) -> Scored:
        path, label = picture
        try:
            return Scored(path, label, classifier.predict_bytes([path.read_bytes()])[0])
        except PictureError as error:
            return Scored(path, label, None, error.code)

    with ThreadPoolExecutor(usable_cores()) as pool:
        return list(tqdm(pool.map(one, pictures), "score", len(pictures), unit="picture"))


def labelled(root: Path, rename: dict[str, str]) -> list[tuple[Path, str]]:
    """The pictures of a class tree with their class names; DataError when there is no such tree."""
    names = find_tree(root).pictures
    return [(path, rename.get(label, label)) for name, path in names.items() for label in [name.split("/")[-2]]]


def write_csv(path: Path, scored: Sequence[Scored], classes: Sequence[str]) -> None:
    """One row a picture; a refused one has its reason in place of a prediction."""
    part = path.with_suffix(".part")
    with part.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", "prediction", *classes])
        for row in scored:
            values = [] if row.probabilities is None else row.probabilities.tolist()
            answer = row.refused if row.probabilities is None else classes[int(row.probabilities.argmax())]
            writer.writerow([row.path, row.label, answer, *(f"{value:.7f}" for value in values)])
    part.replace(path)


def summary(scored: Sequence[Scored], classes: Sequence[str]) -> str:
    """Accuracy over all pictures (a refused one counts as wrong) with its interval."""
    answers = [None if row.probabilities is None else classes[int(row.probabilities.argmax())] for row in scored]
    right = sum(answer == row.label for answer, row in zip(answers, scored, strict=True))
    low, high = accuracy_interval(right, len(scored))
    refused = sum(row.probabilities is None for row in scored)
    return (
        f"accuracy {right / len(scored):.4f} (95 % interval {low:.4f} to {high:.4f}), "
        f"{len(scored)} pictures, {refused} refused"
    )


def main() -> None:
    parser = argparse.ArgumentParser("python -m training.score", description=__doc__)
    parser.add_argument("folder", type=Path, help="class folders with pictures")
    parser.add_argument("--model", type=Path, default=MODEL_FOLDER, help=f"model folder (default {MODEL_FOLDER})")
    parser.add_argument("--out", type=Path, help="write every answer to this CSV file")
    arguments = parser.parse_args()
    folder = ModelFolder.open(arguments.model)
    scored = score(folder, labelled(arguments.folder, params.load().data.rename))
    if arguments.out:
        write_csv(arguments.out, scored, folder.classes)
    print(summary(scored, folder.classes))


if __name__ == "__main__":
    run_command(main, (params.ParamsError, DataError, ModelFolderError))
