"""Pictures of nothing: noise and flat colours, from a fixed seed. No class of any problem is to be seen in them."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

NOISE, FLAT = 128, 16  # pictures
GRAINS = 6  # of 1, 2, 4 ... pixels
SEED = 0


def pictures(side: int) -> NDArray[np.uint8]:
    """uint8 [N, side, side, 3], the same for the same side."""
    random = np.random.default_rng(SEED)
    flat = [np.broadcast_to(random.integers(0, 256, 3, np.uint8), (side, side, 3)) for _ in range(FLAT)]
    return np.stack([*(_noise(random, number, side) for number in range(NOISE)), *flat])


def _noise(random: Generator, number: int, side: int) -> NDArray[np.uint8]:
    """Grain of 1 to 32 pixels, sharp or smooth, grey or coloured, Gaussian or uniform: every mixture in turn."""
    grain = 2 ** (number % GRAINS)
    smooth, grey, uniform = ((number // GRAINS) >> bit & 1 for bit in range(3))
    shape = (-(-side // grain), -(-side // grain), 1 if grey else 3)
    values = random.uniform(0, 255, shape) if uniform else random.normal(128, random.uniform(20, 80), shape)
    small = Image.fromarray(np.clip(np.broadcast_to(values, (*shape[:2], 3)), 0, 255).astype(np.uint8))
    size = (shape[1] * grain, shape[0] * grain)
    large = small.resize(size, Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST)
    return np.asarray(large)[:side, :side]
