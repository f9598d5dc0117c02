"""What a picture looks like in six figures: what drifts when cameras, users or an upload form change.

They are measured on the network's input, so the service has them in less than a millisecond, and the picture
itself need not be kept. Only numpy is imported: this module travels into the Bento.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

PROPERTIES = ("brightness", "contrast", "sharpness", "saturation", "short_side", "aspect")
LUMA = np.array((0.299, 0.587, 0.114), np.float32)  # of red, green, blue


def measure(pixels: NDArray[np.uint8], width: int, height: int) -> dict[str, float]:
    """The figures of one picture by name, in the order of PROPERTIES.

    `pixels` uint8 [size, size, 3]: the network's input; `width`, `height`: pixels of the picture as sent, upright.
    brightness, contrast: mean and standard deviation of the luma (ITU-R BT.601), 0 to 255 and 0 to 127.5, and
    saturation: mean of (max - min) / max over the channels, 0 to 1, all three of every second pixel and row;
    sharpness: standard deviation of the Laplacian of green in every second row, in levels of 255 (Pech-Pacheco et al.
    2000, Diatom autofocusing); short_side: pixels; aspect: width / height.
    """
    channels = np.ascontiguousarray(pixels[::2].transpose(2, 0, 1)[:, :, ::2])
    values = (
        *_light(channels),
        _deviation(_laplacian(pixels[:, :, 1].astype(np.int16))),
        _saturation(*channels),
        min(width, height),
        width / height,
    )
    return dict(zip(PROPERTIES, map(float, values), strict=True))


def _light(channels: NDArray[np.uint8]) -> tuple[float, float]:
    """Mean and standard deviation of the luma."""
    luma = LUMA @ channels.reshape(3, -1).astype(np.float32)
    return float(luma.mean()), _deviation(luma)


def _laplacian(grey: NDArray[np.int16]) -> NDArray[np.int16]:
    """Of every second row; in place, which takes a third of the time."""
    rows = grey[1:-1:2]
    edges = grey[:-2:2, 1:-1] + grey[2::2, 1:-1]
    edges += rows[:, :-2]
    edges += rows[:, 2:]
    edges -= rows[:, 1:-1] << 2
    return edges


def _saturation(red: NDArray[np.uint8], green: NDArray[np.uint8], blue: NDArray[np.uint8]) -> float:
    highest = np.maximum(np.maximum(red, green), blue)
    lowest = np.minimum(np.minimum(red, green), blue)
    return float(((highest - lowest) / np.maximum(highest, 1).astype(np.float32)).mean())


def _deviation(values: NDArray[Any]) -> float:
    """Standard deviation, in a third of numpy's time."""
    flat = values.ravel().astype(np.float32)
    mean = float(flat.mean())
    return math.sqrt(max(0.0, float(flat @ flat) / flat.size - mean * mean))
