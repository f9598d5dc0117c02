"""Batches are the same for the same seed and epoch, and what they hold belongs together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.fit.augment import (
    CHANGES,
    MORE_VIEWS,
    VIEWS,
    Augmented,
    View,
    darker,
    extended,
    grainy,
    grey,
    in_pieces,
    mirrored,
    named,
    plain,
    sharpened,
    shuffled,
)

pytestmark = pytest.mark.torch


def pictures(count: int = 10, side: int = 36) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_every_item_comes_once_in_an_epoch() -> None:
    assert sorted(np.concatenate(list(shuffled(10, 4, seed=1, epoch=0)))) == list(range(10))


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    first, again, other = (np.concatenate(list(shuffled(50, 50, *how))) for how in ((1, 0), (1, 0), (1, 1)))
    assert len(first) == 50
    assert (first == again).all()
    batches = [next(iter(shuffled(50, 10, 1, epoch))) for epoch in (0, 1)]
    assert (batches[0] != batches[1]).any()
    assert sorted(other) == sorted(first)


def test_a_last_batch_of_one_is_left_out() -> None:
    assert [len(batch) for batch in shuffled(9, 4, 0, 0)] == [4, 4]
    assert [len(batch) for batch in shuffled(1, 4, 0, 0)] == [1]


def test_an_epoch_can_be_repeated() -> None:
    labels = torch.arange(10)
    batches = Augmented(pictures(), labels, size=32, batch_size=5, epochs=4, seed=3)
    first, again = list(batches(1)), list(batches(1))
    for (images, targets), (images_again, targets_again) in zip(first, again, strict=True):
        assert torch.equal(images, images_again)
        assert torch.equal(targets, targets_again)
    assert not torch.equal(first[0][0], next(iter(batches(2)))[0])


@pytest.mark.parametrize(("epoch", "side"), [(0, 64), (40, 96), (79, 112), (99, 112)])
def test_pictures_grow_during_training(epoch: int, side: int) -> None:
    batches = Augmented(pictures(), torch.arange(10), size=128, batch_size=5, epochs=100, seed=0)
    assert abs(batches.side(epoch) - side) <= 16
    assert batches.side(epoch) % 16 == 0


def test_views_keep_the_shape_and_do_what_they_say() -> None:
    some = pictures(3)
    assert plain(some) is some
    assert (mirrored(some)[:, :, 0] == some[:, :, -1]).all()
    assert sharpened(some).shape == some.shape
    assert (darker(some) <= some).all()
    assert (grey(some)[..., 0] == grey(some)[..., 2]).all()
    flat = np.full((1, 8, 8, 3), 90, np.uint8)
    assert (sharpened(flat) == flat).all()


@pytest.mark.parametrize("view", {**VIEWS, **MORE_VIEWS, **CHANGES}.values(), ids=lambda view: view.__name__)
def test_a_view_is_another_picture_of_the_same_form(view: View) -> None:
    some = pictures(2)
    seen = view(some)
    assert (seen.shape, seen.dtype) == (some.shape, some.dtype)
    assert (seen != some).any()


def test_mirrored_doubles_the_views_and_any_other_is_one_more() -> None:
    assert extended(("plain",), "sharpened") == ("plain", "sharpened")
    both = ("plain", "sharpened", "mirrored", "sharpened mirrored")
    assert extended(("plain", "sharpened"), "mirrored") == both
    assert extended(both, "grey") == (*both, "grey", "grey mirrored")


def test_views_after_each_other_have_one_name() -> None:
    some = pictures(2)
    assert (named("sharpened mirrored")(some) == mirrored(sharpened(some))).all()
    assert named("plain")(some) is some


def test_pictures_in_pieces_keep_their_pixels_and_lose_their_places() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 18, 18, 3), np.uint8)
    found = in_pieces(pictures)
    for before, after in zip(pictures, found, strict=True):
        assert (np.sort(before.reshape(-1, 3), axis=0) == np.sort(after.reshape(-1, 3), axis=0)).all()
    squares = [
        pictures[0, top : top + 4, left : left + 4].tobytes() for top in range(0, 16, 4) for left in range(0, 16, 4)
    ]
    moved = [found[0, top : top + 4, left : left + 4].tobytes() for top in range(0, 16, 4) for left in range(0, 16, 4)]
    assert sorted(squares) == sorted(moved)
    assert sum(one == other for one, other in zip(squares, moved, strict=True)) < 4
    assert (found[:, 16:] == pictures[:, 16:]).all()  # what the squares leave over stays


def test_grain_is_the_same_on_each_picture() -> None:
    flat = np.full((2, 32, 32, 3), 128, np.uint8)
    found = grainy(flat)
    assert (found[0] == found[1]).all()
    assert 15 < found[0].std() < 25
