"""Classes and splits by folders, at any depth: `CLASS`, `SPLIT/CLASS` and `CLASS/SPLIT`, with whatever above and below.

No picture is passed over: one that has no class, or no split where others have one, is a stray, which is an error.
"""

from __future__ import annotations

import filecmp
from collections.abc import Mapping, Sequence
from pathlib import Path

from data.layout.flat import classes_of_names
from data.layout.plan import Place, Plan, counted
from data.layout.scan import Folder
from data.layout.words import LISTED, hinted

EXPECTED = "expected CLASS/NAME.jpg or {train,validation,test}/CLASS/NAME.jpg with two classes or more"
LEAVE_OUT = "or leave it out by data.ignore"


def read(everything: Folder, rename: Mapping[str, str]) -> Plan:
    """How the pictures in a folder are read. `rename`: data.rename; folders in it are classes, whatever their names."""
    plan = Plan(everything.path, rename)
    top = _descend(everything, plan)
    if any(plan.split_of(child.path.name) for child in top.filled()):
        _read_splits(top, plan)
    else:
        _read_classes(top, plan)
    return plan


def _descend(folder: Folder, plan: Plan) -> Folder:
    """The folder of the classes or splits: through every folder that is the only one with pictures."""
    while len(inside := folder.filled()) == 1 and not plan.split_of(inside[0].path.name):
        if not inside[0].filled() and (folder.pictures or isinstance(classes_of_names(inside[0].pictures), str)):
            break  # a class
        plan.stray(folder.pictures, f"they lie above the classes: move them into one, {LEAVE_OUT}")
        folder = inside[0]
    return folder


def _read_splits(top: Folder, plan: Plan) -> None:
    splits = [child for child in top.filled() if plan.split_of(child.path.name)]
    for folder in splits:
        _read_split(
            folder, str(plan.split_of(folder.path.name)), [other for other in splits if other is not folder], plan
        )
    where = ", ".join(folder.path.name for folder in splits)
    plan.stray(top.pictures, f"they lie beside {where}, in no split: move them, {LEAVE_OUT}")
    for folder in top.filled():
        if folder not in splits and not _is_copy(folder, top, plan):
            plan.stray(
                folder.all_pictures(),
                f"{folder.path.name} lies beside {where} and is no split ({LISTED}): move it into one, {LEAVE_OUT}",
            )


def _read_split(folder: Folder, split: str, others: Sequence[Folder], plan: Plan) -> None:
    inner = folder
    while not inner.pictures and len(inside := inner.filled()) == 1:
        word = plan.split_of(inside[0].path.name)
        is_wrapper = bool(inside[0].filled()) and not any(_has_class(other, inside[0].path.name) for other in others)
        if word != split and (word or not is_wrapper):
            break
        inner = inside[0]
    _empty(inner, plan)
    classes = inner.filled()
    if not classes:
        _read_names(inner, split, plan)
        return
    plan.stray(inner.pictures, f"they lie in {folder.path.name}, beside the folders of the classes: move them into one")
    for child in classes:
        if other := plan.split_of(child.path.name):
            plan.stray(child.all_pictures(), f"a folder for {other} lies in one for {split}: move it out, {LEAVE_OUT}")
            continue
        for path in child.all_pictures():
            below = path.relative_to(child.path).parts
            if any(plan.split_of(part) not in (None, split) for part in below[:-1]):
                plan.stray([path], f"a folder of another split lies in one for {split}: move it out, {LEAVE_OUT}")
            else:
                plan.add(path, Place(child.path.name, split), below)


def _has_class(split: Folder, name: str) -> bool:
    """Whether another split has a folder of this name among several: then it is a class, and no wrapper."""
    inside = split.filled()
    return len(inside) > 1 and any(child.path.name == name for child in inside)


def _empty(folder: Folder, plan: Plan) -> None:
    for child in folder.folders:
        if not any(inside.pictures or inside.unread for inside in child.walk()):
            name = child.path.relative_to(plan.root).as_posix()
            plan.problems.append(f"class folder {name} has no pictures: add some, remove the folder, {LEAVE_OUT}")


def _read_names(folder: Folder, split: str, plan: Plan) -> None:
    """Pictures without folders of classes: their names may tell."""
    labels = classes_of_names(folder.pictures)
    if isinstance(labels, str):
        name = folder.path.name
        is_class = f"if {name} is a class, say so by data.rename ({{{name}: another name}}); else " if split else ""
        plan.stray(
            folder.pictures,
            f"there are no class folders, and file names do not tell the class: {labels}; {is_class}move the pictures "
            f"into folders of classes, or list them in labels.csv (path,label), {LEAVE_OUT}",
        )
        return
    for path, label in labels.items():
        plan.add(path, Place(label, split), (path.name,))


def _read_classes(top: Folder, plan: Plan) -> None:
    children = top.filled()
    if not children and top.pictures:
        _read_names(top, "", plan)
        return
    if not children:
        plan.problems.append(f"there are no pictures in {top.path}: {EXPECTED}")
        return
    _empty(top, plan)
    if len(children) < 2:
        plan.problems.append(f"fewer than two class folders in {top.path} (found: {children[0].path.name}): {EXPECTED}")
        return
    plan.stray(top.pictures, f"they lie beside the folders of the classes: move them into one, {LEAVE_OUT}")
    hints = {child.path.name: hint for child in children if (hint := hinted(child.path.name))}
    if len(set(hints.values())) > 1:
        plan.problems.append(
            f"{' and '.join(sorted(hints))} in {top.path} speak of splits and are not called so: rename them ({LISTED})"
        )
    names = {child.path.name for child in children}
    for child in children:
        inside = {folder.path.name for folder in child.filled()}
        if len(inside & names) < 2:
            _read_class(child, plan)
        elif not _is_copy(child, top, plan):
            plan.stray(
                child.all_pictures(),
                f"{child.path.name} holds folders called like the classes beside it: merge them, {LEAVE_OUT}",
            )
    _check_given(plan)


def _read_class(folder: Folder, plan: Plan) -> None:
    """All pictures of a class, in its folders too, which may be those of the splits."""
    for path in folder.all_pictures():
        below = list(path.relative_to(folder.path).parts)
        words = [place for place, part in enumerate(below[:-1]) if plan.split_of(part)]
        if words and words != [len(below) - 2]:
            plan.stray(
                [path],
                f"a folder of a split lies in {folder.path.name}, and folders in it: which are the classes? "
                f"Put the splits above the classes, {LEAVE_OUT}",
            )
            continue
        split = plan.split_of(below.pop(words[0])) if words else None
        plan.add(path, Place(folder.path.name, split or ""), below)


def _check_given(plan: Plan) -> None:
    """Where some pictures lie in splits, all do."""
    without = [path for path, place in plan.places.items() if not place.split]
    if without and len(without) < len(plan.places):
        given = sorted({place.split for place in plan.places.values() if place.split})
        plan.stray(without, f"they are in no split, and others are in {' and '.join(given)}: move them, {LEAVE_OUT}")


def _is_copy(folder: Folder, top: Folder, plan: Plan) -> bool:
    """Whether all pictures of a folder lie beside it once more, at the same path below `top` and byte for byte."""
    pictures = folder.all_pictures()
    if not all(_same(path, top.path / path.relative_to(folder.path)) for path in pictures):
        return False
    name = folder.path.relative_to(plan.root).as_posix()
    plan.notes.append(f"{name} is left out: a second copy of {counted(len(pictures), 'picture')} beside it")
    return True


def _same(path: Path, other: Path) -> bool:
    return other.is_file() and filecmp.cmp(path, other, shallow=False)
