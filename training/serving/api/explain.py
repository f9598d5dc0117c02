"""Why this label: the class-activation map (Zhou et al. 2016) laid over the picture as the network saw it."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.requests import Request

from training.serving.api.requests import flag
from training.serving.errors import Fault

COLD, WARM = np.array([0, 0, 160], np.float32), np.array([255, 64, 0], np.float32)
STRENGTH = 0.6  # of the colour where the map is hottest


def heat(activation: NDArray[np.float32]) -> NDArray[np.float32]:
    """One class's map [h, w] between 0 (least evidence in this picture) and 1 (most)."""
    low, high = float(activation.min()), float(activation.max())
    return (activation - low) / (high - low) if high > low else np.zeros_like(activation)


def mapped(request: Request) -> bool:
    """Whether the map is wanted (`heat`); Fault 422 for a wrong value, or where numbers are asked for."""
    if request.query_params.get("format", "png") != "png":
        raise Fault(422, "wrong_parameter", "/explain answers with a PNG alone", "POST /heatmap for the map as numbers")
    return flag(request, "heat", True)


def drawn(pixels: NDArray[np.uint8], warmth: NDArray[np.float32] | None) -> bytes:
    """PNG of the picture [size, size, 3], under its map [h, w] if there is one."""
    file = io.BytesIO()
    Image.fromarray(pixels if warmth is None else _overlaid(pixels, warmth)).save(file, "PNG")
    return file.getvalue()


def _overlaid(pixels: NDArray[np.uint8], warmth: NDArray[np.float32]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    smooth = Image.fromarray(warmth).resize((width, height), Image.Resampling.BICUBIC)
    share = np.clip(np.asarray(smooth), 0, 1)[..., None]
    colour = COLD + share * (WARM - COLD)
    mixed: NDArray[np.uint8] = np.clip(pixels + STRENGTH * share * (colour - pixels), 0, 255).astype(np.uint8)
    return mixed
