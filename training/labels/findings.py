"""What the audit found: labels that are probably wrong, near duplicates of two classes, outliers, classes that blur."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.manifest import PICTURES_FOLDER, Picture
from training.common.intervals import wilson
from training.labels.noise import Floats, Labels, Noise

SUSPECT = 0.5  # probability that the label is wrong
LISTED = 20  # in the metrics file, of each kind
FENCE = 3.0  # interquartile ranges above the third quartile: far out (Tukey 1977)
BLURRED = 0.02  # mean probability of the other class, from which two classes are said to blur


@dataclass(frozen=True)
class Suspect:
    """Near duplicates with one label (mostly a single picture), what the first of them looks like, and how surely the
    label is wrong."""

    pictures: tuple[Picture, ...]
    guess: str
    certainty: float


@dataclass(frozen=True)
class Judged:
    """The pictures of a split [N]: labels, logits [N, K] of heads that did not learn from them, and novelty."""

    name: str
    pictures: tuple[Picture, ...]
    classes: tuple[str, ...]
    labels: Labels
    logits: Floats
    novelty: Floats
    noise: Noise

    def suspects(self) -> list[Suspect]:
        """Labels of at least one in two to be wrong, the surest first; without those that somebody confirmed.

        A label of several near duplicates is one, as sure as the mean of them.
        """
        wrong, guesses = self.noise.wrong(self.logits, self.labels), self.logits.argmax(1)
        members: dict[tuple[str, str], list[int]] = {}
        for row, picture in enumerate(self.pictures):
            if not picture.given:
                members.setdefault((picture.group or picture.path.as_posix(), picture.label), []).append(row)
        found = [
            Suspect(
                tuple(self.pictures[row] for row in rows),
                self.classes[guesses[rows[int(wrong[rows].argmax())]]],
                float(wrong[rows].mean()),
            )
            for rows in members.values()
        ]
        return sorted((one for one in found if one.certainty >= SUSPECT), key=lambda one: -one.certainty)

    def outliers(self) -> list[Picture]:
        """Pictures that are far from all others, the farthest first."""
        low, high = np.quantile(self.novelty, (0.25, 0.75))
        order = np.argsort(-self.novelty, kind="stable")
        return [self.pictures[row] for row in order if self.novelty[row] > high + FENCE * (high - low)]

    def twins(self) -> list[list[Picture]]:
        """Groups of near duplicates whose labels differ: one of them is wrong, or nobody can tell them apart."""
        groups: dict[str, list[Picture]] = {}
        for picture in self.pictures:
            if picture.group:
                groups.setdefault(picture.group, []).append(picture)
        return [group for group in groups.values() if len({picture.label for picture in group}) > 1]

    def right(self) -> NDArray[np.bool_]:
        return np.asarray(self.logits.argmax(1) == self.labels)


def blurred(splits: Sequence[Judged]) -> list[dict[str, Any]]:
    """Pairs of classes that are hard to tell apart: the probability that pictures of one get for the other, the mean
    of both ways, the most blurred first."""
    classes = splits[0].classes
    probabilities = np.concatenate([one.noise.probabilities(one.logits) for one in splits])
    labels = np.concatenate([one.labels for one in splits])
    means = np.stack([probabilities[labels == label].mean(0) for label in range(len(classes))])
    both = (means + means.T) / 2
    pairs = [(float(both[a, b]), a, b) for a in range(len(classes)) for b in range(a) if both[a, b] >= BLURRED]
    return [{"classes": [classes[b], classes[a]], "share": share} for share, a, b in sorted(pairs, reverse=True)]


def describe(splits: Sequence[Judged], how: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics file: counts and shares of each split, the worst by name; `how`: what judged them."""
    whole = {"blurred_classes": blurred(splits)[:LISTED], "judge": {**how}}
    return {one.name: _of_split(one) for one in splits} | whole


def _of_split(one: Judged) -> dict[str, Any]:
    suspects = one.suspects()
    right = one.right()
    return {
        "pictures": len(one.pictures),
        "wrong_labels": {"value": one.noise.share, "interval": list(one.noise.interval)},
        "held_out_accuracy": {"value": float(right.mean()), "interval": list(wilson(int(right.sum()), len(right)))},
        "suspects": len(suspects),
        "near_duplicates_of_several_classes": len(one.twins()),
        "outliers": len(one.outliers()),
        "looked_at": sum(bool(picture.given) for picture in one.pictures),
        "most_certain": [
            {
                "picture": picture.path.relative_to(PICTURES_FOLDER).as_posix(),
                "source": picture.source,
                "sha256": picture.sha256,
                "label": picture.label,
                "looks_like": suspect.guess,
                "certainty": round(suspect.certainty, 4),
            }
            for suspect in suspects[:LISTED]
            for picture in suspect.pictures[:1]
        ],
    }


def told(found: Mapping[str, Any]) -> Iterator[str]:
    """The same in a few lines for the terminal."""
    for name in ("train", "validation", "test"):
        one = found[name]
        low, high = one["wrong_labels"]["interval"]
        yield (
            f"{name}: {one['wrong_labels']['value']:.1%} of the labels are wrong ({low:.1%} to {high:.1%}), "
            f"{one['suspects']} of {one['pictures']} to look at, {one['outliers']} outliers, "
            f"{one['near_duplicates_of_several_classes']} groups of near duplicates with different labels"
        )
    for pair in found["blurred_classes"][:3]:
        yield f"  {' and '.join(pair['classes'])} blur: {pair['share']:.1%}"
