"""Classes in the names of files: `cat.12.jpg`, `dog_3.png`, `american bulldog (7).jpg`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from data.layout.words import nfc

# Letters, in words that a blank or _ or - keeps together; then a separator, and a number that ends the name.
NAME = re.compile(r"(?P<label>[^\W\d_]+(?:[ _-][^\W\d_]+)*)[ ._-]*(?:\d+|\(\d+\))")
LEAST = 2  # pictures of a class
# What cameras, phones and programs begin names with: the same rule would take them for classes.
NO_CLASSES = frozenset(
    [
        *("img", "dsc", "dscn", "dscf", "mg", "cimg", "pict", "p", "pxl", "mvimg", "gopr", "dji", "sam", "wp"),
        *("photo", "picture", "pic", "image", "images", "frame", "scan", "file", "screenshot", "untitled", "download"),
        *("snapshot", "capture", "crop"),
    ]
)


def classes_of_names(paths: Sequence[Path]) -> dict[Path, str] | str:
    """The class of each picture by its file's name; otherwise the reason, in words, why names do not tell.

    They tell where all begin with letters and end with a number, two classes or more have two pictures or more each,
    and none is called as cameras call pictures.
    """
    found = {path: NAME.fullmatch(nfc(path.stem)) for path in paths}
    if odd := next((path.name for path, match in found.items() if not match), None):
        return f"{odd} does not begin with the name of a class and end with a number (as cat.12.jpg does)"
    labels = {path: match["label"] for path, match in found.items() if match}
    counts = Counter(labels.values())
    if camera := next((label for label in counts if label.strip("_- ").casefold() in NO_CLASSES), None):
        return f"{camera!r} is how cameras and programs begin names, hardly a class"
    if len(counts) < 2:
        return f"all file names begin alike ({next(iter(counts))!r}): that is one class"
    if lone := next((label for label, count in counts.items() if count < LEAST), None):
        return f"{lone!r} would be a class of one picture"
    return labels
