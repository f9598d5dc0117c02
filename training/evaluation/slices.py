"""Kinds of pictures on which a model must not fail, however good it is on the whole: brightness, size, aspect, and the
values of columns of one's own (data/columns.csv), such as camera, site or customer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.manifest import Picture
from training.evaluation.metrics import share

Slices = dict[str, NDArray[np.bool_]]

# Fixed bounds, so that a slice means the same in every run.
DARK, BRIGHT = 80.0, 175.0  # mean of the pixel values
SMALL, LARGE = 64, 300  # pixels, short side
TALL, WIDE = 0.8, 1.25  # width by height
DESCRIBED = 50  # slices in the figures of an evaluation, the largest ones


def slices(pictures: Sequence[Picture], images: NDArray[np.uint8]) -> Slices:
    """Name -> which of the N pictures belong to it. `images`: the same pictures, uint8 [N, size, size, 3]."""
    width, height = np.array([(picture.width, picture.height) for picture in pictures]).T
    brightness = np.array([float(image.mean()) for image in images])
    return {
        **_three("brightness", ("dark", "medium", "bright"), brightness, DARK, BRIGHT),
        **_three("size", ("small", "medium", "large"), np.minimum(width, height), SMALL, LARGE),
        **_three("aspect", ("tall", "square", "wide"), width / height, TALL, WIDE),
        **_own(pictures),
    }


def described(found: Slices, right: NDArray[np.bool_]) -> dict[str, dict[str, Any]]:
    """The accuracy on every slice that has pictures, with its 95 % interval; of many the largest. `right` [N]."""
    sizes = {name: int(mask.sum()) for name, mask in found.items()}
    largest = sorted((name for name in found if sizes[name]), key=lambda name: -sizes[name])[:DESCRIBED]
    return {name: {"pictures": sizes[name], **share(right[found[name]])} for name in found if name in largest}


def _own(pictures: Sequence[Picture]) -> Slices:
    """A slice for every value that a column of one's own has; a picture without a value is in none of them."""
    found: Slices = {}
    for place, (name, _) in enumerate(pictures[0].columns):
        values = np.array([picture.columns[place][1] for picture in pictures])
        found |= {f"{name} {value}": np.asarray(values == value) for value in np.unique(values).tolist() if value}
    return found


def _three(kind: str, names: tuple[str, str, str], values: NDArray[np.float64], low: float, high: float) -> Slices:
    masks = (values < low, (values >= low) & (values < high), values >= high)
    return {f"{kind} {name}": mask for name, mask in zip(names, masks, strict=True)}
