"""What cross-validation chooses, on features of which it is known what helps."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from training.fit.choice import Candidate, Judged, Search, Trial
from training.fit.solve import level_sets, sample

pytestmark = pytest.mark.torch

COUNT = 240
LAST, ALL = np.arange(4, 8), np.arange(8)


def features(early: float, late: float) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Two classes; four features of an early level and four of the last one tell them apart, as strongly as said."""
    random = np.random.default_rng(0)
    labels = np.arange(COUNT) % 2
    signal = np.repeat([early, late], 4) * (2 * labels[:, None] - 1)
    return (random.normal(size=(COUNT, 8)) + signal).astype(np.float32), labels


def search(
    views: dict[str, NDArray[np.float32]],
    labels: NDArray[np.int64],
    shift: float = 0.0,
    pieces: NDArray[np.float32] | None = None,
    groups: NDArray[np.int64] | None = None,
) -> Search:
    held = np.arange(COUNT // 2)
    changed = {"shifted": views["plain"][held] + np.float32(shift)}
    pieces = np.zeros((len(held), 8), np.float32) if pieces is None else pieces
    nothing = np.random.default_rng(1).normal(size=(20, 8)).astype(np.float32)
    columns = {"last": LAST, "all": ALL}
    groups = np.arange(len(labels)) if groups is None else groups
    return Search(lambda view: views[view], changed, pieces, nothing, held, labels, groups, 2, columns, seed=1)


@pytest.mark.parametrize(("early", "chosen"), [(1.0, "all"), (0.0, "last")])
def test_more_levels_are_taken_where_they_tell_more(early: float, chosen: str) -> None:
    plain, labels = features(early, late=0.5)
    found = search({"plain": plain}, labels).run([])
    assert found.candidate == Candidate(chosen, ("plain",))
    assert [row["levels"] for row in found.table if row["chosen"]] == [chosen]
    assert [point["pictures"] for point in found.learning_curve] == [60, 120, 240]


def test_near_duplicates_are_held_out_together() -> None:
    plain, labels = features(early=1.0, late=0.5)
    fold = search({"plain": plain}, labels, groups=np.arange(COUNT) // 8).fold
    assert set(fold) == set(range(5))
    assert all(len(set(group)) == 1 for group in fold.reshape(-1, 8))


def test_a_class_that_is_one_group_is_split_up() -> None:
    plain, labels = features(early=1.0, late=0.5)
    fold = search({"plain": plain}, labels, groups=np.where(labels == 0, 0, np.arange(COUNT))).fold
    assert set(fold[labels == 0]) == set(range(5))


def test_levels_that_are_sure_of_a_picture_in_pieces_are_not_taken() -> None:
    plain, labels = features(early=1.0, late=0.5)
    pieces = np.zeros((COUNT // 2, 8), np.float32)
    pieces[:, :4] = 5.0
    found = search({"plain": plain}, labels, pieces=pieces).run([])
    last, every = found.table
    assert every["log_loss"] < last["log_loss"]
    assert every["apart"] < 0.1 < last["apart"]
    assert last["chosen"]


def test_a_mirror_that_makes_another_class_is_left_out() -> None:
    plain, labels = features(0.0, late=1.0)
    found = search({"plain": plain, "mirrored": -plain}, labels).run(["mirrored"])
    assert found.candidate.views == ("plain",)
    tried, mirrored = found.table[:2]
    assert mirrored["views"] == ["plain", "mirrored"]
    assert mirrored["log_loss"] > 2 * tried["log_loss"]


def test_a_view_like_what_others_send_is_taken() -> None:
    plain, labels = features(0.0, late=1.0)
    views = {"plain": plain, "sharpened": plain + np.float32(3)}
    assert search(views, labels, shift=3.0).run(["sharpened"]).candidate.views == ("plain", "sharpened")


def trial(strength: float, plain: float, changed: float) -> Trial:
    noise = np.tile([-0.5, 0.5], 50)  # a standard error of 0.05
    return Trial(strength, plain + noise, changed + noise, 0.0)


def test_strength_is_the_strongest_within_a_standard_error_both_plain_and_changed() -> None:
    path = (trial(10, 1.0, 1.0), trial(1, 0.54, 0.8), trial(0.1, 0.51, 0.54), trial(0.01, 0.5, 0.5))
    judged = Judged(Candidate("last", ("plain",)), path)
    assert judged.chosen.strength == 0.1
    assert judged.best.strength == 0.01


def test_levels_are_those_where_the_width_changes() -> None:
    sides = {1: (16, 8), 2: (24, 4), 3: (24, 4), 4: (40, 2), 5: (80, 2), 6: (96, 2)}
    assert level_sets(sides) == {"last": (6,), "late": (3, 4, 5, 6), "all": (1, 2, 3, 4, 5, 6)}
    assert level_sets({0: (16, 8)}) == {"last": (0,)}


def test_a_sample_keeps_shares_and_five_of_each_class() -> None:
    labels = np.repeat([0, 1, 2], [1000, 990, 10])
    assert np.bincount(labels[sample(labels, 100)]).tolist() == [50, 50, 5]
    assert (sample(labels, 5000) == np.arange(2000)).all()
