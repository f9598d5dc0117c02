"""What becomes of every picture of a folder: its class and split, or why it has none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data.errors import DataError
from data.layout.words import LISTED, nfc, split_of
from training.common.table import columns

SLASH = "%2F"  # in names, where a slash would make another folder
LONGEST = 255  # bytes of a name in most file systems
SHOWN = 10  # names, in an error about many


@dataclass(frozen=True)
class Place:
    """Where a picture goes: a folder of a class, and a split if the source gives one ("": none)."""

    label: str  # as the source spells it
    split: str = ""


@dataclass
class Plan:
    """How a folder is read. It can be used if `strays` and `problems` are empty: see `check`."""

    root: Path
    rename: Mapping[str, str]  # data.rename
    places: dict[Path, Place] = field(default_factory=dict)
    names: dict[str, Path] = field(default_factory=dict)  # `[SPLIT/]CLASS/NAME`
    strays: dict[Path, str] = field(default_factory=dict)  # pictures that end up nowhere, with the reason
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what should be known and stops nothing

    def split_of(self, folder: str) -> str | None:
        """The split that a folder stands for; none if data.rename makes a class of it."""
        return None if nfc(folder) in self.rename else split_of(folder)

    def add(self, path: Path, place: Place, below: Sequence[str]) -> None:
        """Give a picture its place; `below`: its path below the folder of its class."""
        folder = nfc(place.label).replace("/", SLASH)
        name = nfc(SLASH.join(below))
        whole = "/".join(filter(None, [place.split, folder, name]))
        if problem := _bad(folder, name, whole, bool(self.split_of(place.label))):
            self.problems.append(f"{self._at(path)}: {problem}")
        elif whole in self.names:
            other = self._at(self.names[whole])
            self.problems.append(f"{self._at(path)} and {other} would be one file, {whole}: rename one of them")
        else:
            self.names[whole] = path
            self.places[path] = place

    def stray(self, paths: Iterable[Path], why: str) -> None:
        self.strays |= dict.fromkeys(paths, why)

    def _at(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def check(self) -> None:
        """DataError, which names the pictures and the mend, if anything is unclear."""
        spellings = _spellings({self._at(path): place for place, path in self._examples().items()}, self.rename)
        faults = [*self._lost(), *self.problems, *(spellings or _uneven(self.places.values(), self.rename))]
        if faults:
            more = f" (and {len(faults) - SHOWN} more such errors)" if len(faults) > SHOWN else ""
            raise DataError("\n".join(faults[:SHOWN]) + more)
        labels = {label_of(place.label, self.rename) for place in self.places.values()}
        if len(labels) == 1 < len({place.label for place in self.places.values()}):
            raise DataError(f"data.rename makes one class of all folders ({min(labels)}): two or more are needed")
        if len(labels) < 2:
            raise DataError(f"fewer than two classes in {self.root} (found: {', '.join(labels) or 'none'})")
        if not any(place.split in ("", "train") for place in self.places.values()):
            raise DataError(f"{self.root} has pictures to test with and none to train on: {LISTED}")

    def _examples(self) -> dict[Place, Path]:
        """A picture for each place."""
        return {place: path for path, place in self.places.items()}

    def _lost(self) -> list[str]:
        reasons: dict[str, list[str]] = {}
        for path, why in self.strays.items():
            reasons.setdefault(why, []).append(self._at(path))
        return [
            f"{counted(len(paths), 'picture')} of {self.root} would be lost ({shortened(paths)}): {why}"
            for why, paths in reasons.items()
        ]

    def table(self) -> str:
        """For a person: where the pictures of each folder go."""
        counts: dict[tuple[str, str, str, str], int] = {}
        for path, place in self.places.items():
            row = (self._at(path.parent), place.split or "drawn", label_of(place.label, self.rename), "")
            counts[row] = counts.get(row, 0) + 1
        for path, why in self.strays.items():
            row = (self._at(path.parent), "-", "-", f"LOST: {why}")
            counts[row] = counts.get(row, 0) + 1
        rows = [(folder, str(count), split, label, why) for (folder, split, label, why), count in counts.items()]
        return columns([("folder", "pictures", "split", "class", ""), *sorted(rows)])


def label_of(folder: str, rename: Mapping[str, str]) -> str:
    """The class of a folder: its name, or what `rename` makes of it, in Unicode's form C."""
    name = nfc(folder)
    return nfc(rename.get(name, name)).replace(SLASH, "/")


def counted(count: int, noun: str) -> str:
    """`1 picture`, `2 pictures`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def shortened(names: Sequence[str]) -> str:
    """The first names; of a folder with many, the folder and their number."""
    folders: dict[str, list[str]] = {}
    for name in names:
        folders.setdefault(name.rpartition("/")[0], []).append(name)
    told: list[str] = []
    for folder, inside in sorted(folders.items()):
        many = len(inside) > 3 and folder
        told += [f"{folder}/: {len(inside):,} such as {inside[0].rpartition('/')[2]}"] if many else sorted(inside)
    more = f" and {len(told) - SHOWN:,} more" if len(told) > SHOWN else ""
    return ", ".join(told[:SHOWN]) + more


def _bad(folder: str, name: str, whole: str, is_split: bool) -> str | None:
    if set(whole) & set("\r\n\0") or whole != whole.encode("utf-8", "ignore").decode():
        return (
            f"the name {whole!r} cannot be a line of a UTF-8 manifest: rename the file; if it comes out of an archive, "
            "data.archive_encoding says how names are written there"
        )
    if folder in ("", ".", "..") or "\\" in folder:
        return f"{folder!r} cannot be the name of a class: rename it"
    if is_split:
        return f"a class called {folder!r} cannot be told from the split: data.rename can give it another name"
    if len(name.encode()) > LONGEST:
        return f"its path below the folder of its class has more than {LONGEST} bytes: shorten it"
    return None


def _spellings(places: Mapping[str, Place], rename: Mapping[str, str]) -> list[str]:
    """A line for every class that is spelled in two ways: in upper and lower case, or in two forms of Unicode.

    `places`: a picture's path for each place.
    """
    found: dict[str, dict[str, str]] = {}
    for path, place in places.items():
        spelled = rename.get(nfc(place.label), place.label)
        found.setdefault(" ".join(nfc(spelled).casefold().split()), {}).setdefault(spelled, path)
    lines = []
    for names in found.values():
        if len(names) > 1:
            told = " and ".join(_told(name, path) for name, path in sorted(names.items()))
            lines.append(
                f"one class is spelled in {len(names)} ways, {told}: give the folders one name, or merge them by "
                f"data.rename: {{{nfc(min(names))}: {nfc(max(names))}}}"
            )
    return lines


def _told(name: str, path: str) -> str:
    form = "" if name.isascii() else "Unicode form C, " if nfc(name) == name else "Unicode form D, "
    return f"{name!r} ({form}{path})"


def _uneven(places: Iterable[Place], rename: Mapping[str, str]) -> list[str]:
    """A line for every class that only one of train and another given split has."""
    labels: dict[str, set[str]] = {}
    for place in {(place.label, place.split): place for place in places}.values():
        labels.setdefault(place.split, set()).add(label_of(place.label, rename))
    known = labels.get("train", set())
    return [
        f"class {label!r} has pictures in {there} and none in {missing}: add some, or, if it is called otherwise "
        "there, merge the two by data.rename"
        for split in sorted(labels.keys() - {"", "train"} if known else ())
        for label in sorted(labels[split] ^ known)
        for there, missing in [(split, "train") if label in labels[split] else ("train", split)]
    ]
