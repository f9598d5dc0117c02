"""The head of a pretrained backbone: candidates, features, search and fit. No epochs: see training.fit.head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from training.common.table import columns as aligned
from training.fit.augment import CHANGES, MORE_VIEWS, PLAIN, VIEWS, extended, in_pieces, named, plain
from training.fit.choice import Choice, Search, log_loss
from training.fit.head import Features, Heads, Rows, Solver
from training.fit.pooled import Frozen, Split

SEARCHED = 3000  # pictures at most, or five of each class: the search costs no more for a larger set
CHANGED = 300  # of them, that are changed in each way
LATE = 4  # stages from the end


@dataclass(frozen=True)
class Solved:
    """The head [D, K], [K] on the averages of `levels`, why it is this one, and what it is worth."""

    choice: Choice
    levels: tuple[int, ...]
    weight: torch.Tensor
    bias: torch.Tensor
    row: dict[str, Any]  # of the history


def level_sets(sides: Mapping[int, tuple[int, int]]) -> dict[str, tuple[int, ...]]:
    """Choices of levels, the simplest first: the last one; the last of each of the last stages (blocks of one width);
    all. `sides`: width and side of the map of each level."""
    places = list(sides)
    ends = [place for place, after in zip(places, [*places[1:], None], strict=True) if _ends(sides, place, after)]
    sets = {"last": (places[-1],), "late": tuple(ends[-LATE:]), "all": tuple(places)}
    return {
        name: levels for number, (name, levels) in enumerate(sets.items()) if levels not in [*sets.values()][:number]
    }


def every_level(sets: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Of such choices the one with all levels."""
    return sets.get("all", sets["last"])


def _ends(sides: Mapping[int, tuple[int, int]], place: int, after: int | None) -> bool:
    return after is None or sides[after][0] != sides[place][0]


def sample(labels: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Places of at most `most` of the labels in order, every class with its share, and with five if it has them."""
    found = []
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        count = min(len(mine), max(5, round(most * len(mine) / len(labels))))
        found.append(mine[np.unique(np.linspace(0, len(mine) - 1, count).astype(int))])
    return np.sort(np.concatenate(found))


def solve(
    frozen: Frozen, train: Split, validation: Split, classes: int, effort: Literal["quick", "thorough"], seed: int
) -> Solved:
    """Choose levels, views and strength, then fit on the whole training split."""
    world, sets = frozen.world, level_sets(frozen.model.sides(frozen.size))
    every = every_level(sets)
    labels = train.labels.numpy()
    rows = sample(labels, SEARCHED // world.size)
    # Those of all processes follow each other; `held` are places among them.
    counts = world.gathered(torch.tensor([len(rows)]))[0]
    held = rows[np.unique(np.linspace(0, len(rows) - 1, CHANGED // world.size).astype(int))]
    mine = np.searchsorted(rows, held) + int(counts[: world.rank].sum())
    asked = (torch.from_numpy(mine), train.labels[rows], train.groups[rows])
    places, searched, groups = (part.numpy() for part in world.gathered(*asked))

    def everyone(features: Features) -> Features:
        return (
            features if world.size == 1 else world.gathered(torch.from_numpy(np.array(features, np.float32)))[0].numpy()
        )

    everybody = world.gathered(train.labels)[0].numpy()
    whole = int(counts.sum()) == len(everybody)
    views = [*VIEWS, *(MORE_VIEWS if effort == "thorough" else {})]
    seen: dict[str, Features] = {}

    def learned_from(view: str) -> Features:
        if view not in seen:
            seen[view] = everyone(frozen.pooled(train, view, named(view), every, None if whole else rows))
        return seen[view]

    if world.size > 1:  # the leader alone searches, and what it asks for needs all
        every_view: tuple[str, ...] = (PLAIN,)
        for view in reduce(extended, views, every_view):
            learned_from(view)
    blank = frozen.pooled(Split.of_nothing(frozen.size), PLAIN, plain, every)  # each process has the same
    pieces = everyone(frozen.pooled(train, "in pieces", in_pieces, every, held))
    changed = {name: everyone(frozen.pooled(train, name, how, every, held)) for name, how in CHANGES.items()}
    columns = {name: columns_of(frozen, every, levels) for name, levels in sets.items()}
    search = Search(learned_from, changed, pieces, blank, places, searched, groups, classes, columns, seed)
    choice = world.agreed(search.run(views) if world.leads else None)
    assert choice is not None
    levels = sets[choice.candidate.levels]
    chosen = columns[choice.candidate.levels]
    if whole:  # features of every level are there already
        taken, used = every, chosen
        features = [learned_from(view) for view in choice.candidate.views]
    else:
        taken, used = levels, np.arange(len(chosen))
        blank = blank[:, chosen]
        features = [everyone(frozen.pooled(train, view, named(view), levels)) for view in choice.candidate.views]
    # The more pictures, the less the prior counts against them: the search had fewer.
    strength = choice.strength * len(searched) / len(everybody)
    heads = world.agreed(fitted(features, used, everybody, classes, strength, blank) if world.leads else None)
    assert heads is not None
    outside = everyone(frozen.pooled(validation, PLAIN, plain, taken))[:, used]
    truth = world.gathered(validation.labels)[0].numpy()
    row = {"lr": 0.0} | _figures("train", heads, features[0][:, used], everybody)
    row |= _figures("validation", heads, outside, truth)
    return Solved(choice, levels, heads.weight[0], heads.bias[0], row)


def fitted(
    features: Sequence[Features],
    columns: NDArray[np.int64],
    labels: NDArray[np.int64],
    classes: int,
    strength: float,
    blank: Features,
) -> Heads:
    """The head of all pictures; `blank`: features of pictures of nothing."""
    rows = Rows(features, columns, labels, classes, blank)
    return Solver(rows, np.ones((len(rows.labels), 1), bool)).fit(strength)


def columns_of(frozen: Frozen, every: tuple[int, ...], levels: tuple[int, ...]) -> NDArray[np.int64]:
    """Which of the averages of all levels are those of `levels`."""
    widths = frozen.model.widths(frozen.size, every)
    return np.flatnonzero(np.repeat([level in levels for level in every], widths))


def _figures(kind: str, heads: Heads, features: Features, labels: NDArray[np.int64]) -> dict[str, float]:
    logits = heads.logits(features)[0].double().numpy()
    accuracy = float((logits.argmax(1) == labels).mean())
    return {f"{kind}_loss": float(log_loss(logits, labels).mean()), f"{kind}_accuracy": accuracy}


def described(choice: Choice) -> str:
    """The table of what was tried, for the terminal."""
    head = ("levels", "views", "strength", "log loss", "changed", "apart", "error", "")
    lines = [
        (
            row["levels"],
            ", ".join(row["views"]),
            f"{row['strength']:.2g}",
            f"{row['log_loss']:.4f}",
            f"{row['changed_log_loss']:.4f}",
            f"{row['apart']:.3f}",
            f"{row['error']:.2%}",
            "chosen" if row["chosen"] else "",
        )
        for row in choice.table
    ]
    return aligned([head, *lines])
