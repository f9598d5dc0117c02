"""What a picture looks like in six figures: what drifts when cameras, users or an upload form change.

They are measured on the network's input, so the service has them in less than a millisecond, and the picture
itself need not be kept. Only numpy is imported: this module travels into the Bento.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

PROPERTIES = ("brightness", "contrast", "sharpness", "saturation", "short_side", "aspect")
LUMA = np.array((0.299, 0.587, 0.114), np.float32)  # of red, green, blue
STEP = 7  # of so many rows and pixels one is looked at; odd, and no divisor of the blocks of a JPEG


def measure(pixels: NDArray[np.uint8], width: int, height: int) -> dict[str, float]:
    """The figures of one picture by name, in the order of PROPERTIES.

    `pixels` uint8 [size, size, 3]: the network's input; `width`, `height`: pixels of the picture as sent, upright.
    brightness, contrast: mean and standard deviation of the luma (ITU-R BT.601), 0 to 255 and 0 to 127.5, and
    saturation: mean of (max - min) / max over the channels, 0 to 1, all three of every seventh pixel and row;
    sharpness: standard deviation of the Laplacian of green in every seventh row, in levels of 255 (Pech-Pacheco et al.
    2000, Diatom autofocusing); short_side: pixels; aspect: width / height.
    """
    channels = pixels[::STEP, ::STEP].reshape(-1, 3).T.astype(np.float32, order="C")
    values = (
        *_mean_and_deviation(LUMA @ channels),
        _mean_and_deviation(_laplacian(pixels[:, :, 1]).ravel())[1],
        _saturation(*channels),
        min(width, height),
        width / height,
    )
    return dict(zip(PROPERTIES, map(float, values), strict=True))


def _laplacian(green: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Of some rows, without their ends."""
    rows = green[1:-1:STEP].astype(np.float32)
    edges = rows[:, :-2] + rows[:, 2:]
    edges += green[:-2:STEP, 1:-1]
    edges += green[2::STEP, 1:-1]
    rows *= 4
    edges -= rows[:, 1:-1]
    return edges


def _saturation(red: NDArray[np.float32], green: NDArray[np.float32], blue: NDArray[np.float32]) -> float:
    highest = np.maximum(np.maximum(red, green), blue)
    lowest = np.minimum(np.minimum(red, green), blue)
    return float(((highest - lowest) / np.maximum(highest, 1)).sum()) / highest.size


def _mean_and_deviation(values: NDArray[np.float32]) -> tuple[float, float]:
    """Mean and standard deviation of a vector, in a third of numpy's time."""
    mean = float(values.sum()) / values.size
    return mean, math.sqrt(max(0.0, float(values @ values) / values.size - mean * mean))
