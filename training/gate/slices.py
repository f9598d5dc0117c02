"""Kinds of pictures on which a model must not fail, however good it is on the whole: brightness, size, aspect."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data.manifest import Picture

Slices = dict[str, NDArray[np.bool_]]

# Fixed bounds, so that a slice means the same in every run.
DARK, BRIGHT = 80.0, 175.0  # mean of the pixel values
SMALL, LARGE = 64, 300  # pixels, short side
TALL, WIDE = 0.8, 1.25  # width by height


def slices(pictures: Sequence[Picture], images: NDArray[np.uint8]) -> Slices:
    """Name -> which of the N pictures belong to it. `images`: the same pictures, uint8 [N, size, size, 3]."""
    width, height = np.array([(picture.width, picture.height) for picture in pictures]).T
    brightness = np.array([float(image.mean()) for image in images])
    return {
        **_three("brightness", ("dark", "medium", "bright"), brightness, DARK, BRIGHT),
        **_three("size", ("small", "medium", "large"), np.minimum(width, height), SMALL, LARGE),
        **_three("aspect", ("tall", "square", "wide"), width / height, TALL, WIDE),
    }


def _three(kind: str, names: tuple[str, str, str], values: NDArray[np.float64], low: float, high: float) -> Slices:
    masks = (values < low, (values >= low) & (values < high), values >= high)
    return {f"{kind} {name}": mask for name, mask in zip(names, masks, strict=True)}
