"""Training batches from decoded pictures: random crops, flips and colours, the same for the same seed and epoch."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor
from torch.nn import functional

View = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]  # [N, size, size, 3] to the same

SMALLEST_CROP = 0.3  # share of the picture's area
STRETCH = 0.29  # natural logarithm of the largest change of aspect, 4:3
COLOUR = 0.3  # brightness, contrast and saturation vary by this factor
QUALITY = 30  # JPEG
MARGIN = 0.06  # share of the side that is cut off on each side
GRAIN = 20.0  # standard deviation of the noise, of 255
PIECES = 4  # on each side


def plain(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return pictures


def mirrored(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(pictures[:, :, ::-1])


def sharpened(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Unsharp masking: a small picture that was enlarged gets edges again, as sharp photographs have them."""
    mask = ImageFilter.UnsharpMask(radius=4, percent=150, threshold=0)
    return np.stack([np.asarray(Image.fromarray(picture).filter(mask)) for picture in pictures])


def grey(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([np.asarray(Image.fromarray(picture).convert("L").convert("RGB")) for picture in pictures])


def softened(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Half the resolution, as a smaller copy of the picture has."""
    side = pictures.shape[1]
    small = (Image.fromarray(picture).resize((side // 2, side // 2), Image.Resampling.BOX) for picture in pictures)
    return np.stack([np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC)) for picture in small])


def darker(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(pictures * (1 - COLOUR)).astype(np.uint8)


def brighter(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(np.minimum(pictures * (1 + COLOUR), 255)).astype(np.uint8)


def encoded(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Written as JPEG of low quality and read again."""

    def again(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=QUALITY)
        return np.asarray(Image.open(file))

    return np.stack([again(picture) for picture in pictures])


def enlarged(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle of the picture at its full size, as from a step nearer."""
    side = pictures.shape[1]
    cut = round(side * MARGIN)
    box = (cut, cut, side - cut, side - cut)
    linear = Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(picture).resize((side, side), linear, box)) for picture in pictures])


def grainy(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """With the noise of a dark room, the same on each picture."""
    noise = np.random.default_rng(0).normal(0, GRAIN, pictures.shape[1:])
    return np.asarray(np.clip(pictures + noise, 0, 255)).astype(np.uint8)


def in_pieces(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut into squares that changed places: what it shows is gone, its colours and its grain are there."""
    count, side = len(pictures), pictures.shape[1] // PIECES
    whole = pictures[:, : side * PIECES, : side * PIECES]
    squares = whole.reshape(count, PIECES, side, PIECES, side, 3).swapaxes(2, 3).reshape(count, -1, side, side, 3)
    moved = squares[:, np.random.default_rng(0).permutation(PIECES**2)]
    placed = moved.reshape(count, PIECES, PIECES, side, side, 3).swapaxes(2, 3)
    seen = np.array(pictures)
    seen[:, : side * PIECES, : side * PIECES] = placed.reshape(whole.shape)
    return seen


# What a head may learn from beside the plain picture, each only where cross-validation says that it helps.
VIEWS: dict[str, View] = {"sharpened": sharpened, "mirrored": mirrored}
MORE_VIEWS: dict[str, View] = {"grey": grey, "enlarged": enlarged, "softened": softened, "darker": darker}
PLAIN, MIRRORED = "plain", "mirrored"
ALL_VIEWS: dict[str, View] = {PLAIN: plain, **VIEWS, **MORE_VIEWS}
# How pictures that people send differ from those that were learnt from, whatever they show.
CHANGES: dict[str, View] = {
    "sharpened": sharpened,
    "softened": softened,
    "darker": darker,
    "brighter": brighter,
    "encoded": encoded,
    "grainy": grainy,
}


def named(view: str) -> View:
    """The view of that name, or of several names after each other: `plain`, `sharpened`, `sharpened mirrored`."""
    steps = [ALL_VIEWS[name] for name in view.split()]

    def seen(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
        for step in steps:
            pictures = step(pictures)
        return pictures

    return seen


def extended(views: Sequence[str], view: str) -> tuple[str, ...]:
    """`views` and one more. Mirrored is one of each, since a mirrored picture is as sharp or as dark as it was."""
    if view == MIRRORED:
        return (*views, *(view if one == PLAIN else f"{one} {view}" for one in views))
    return (*views, view, f"{view} {MIRRORED}") if MIRRORED in views else (*views, view)


def to_channels(pictures: NDArray[np.uint8]) -> Tensor:
    """uint8 [N, H, W, 3] -> uint8 [N, 3, H, W]."""
    return torch.from_numpy(np.require(pictures, requirements=["C", "W"])).permute(0, 3, 1, 2)


def shuffled(count: int, batch_size: int, seed: int, epoch: int) -> Iterator[NDArray[np.int64]]:
    """Index batches of one epoch over `count` items; a last batch of one is left out (batch norm needs two)."""
    order = np.random.default_rng((seed, epoch)).permutation(count)
    for start in range(0, count, batch_size):
        batch = order[start : start + batch_size]
        if len(batch) > 1 or count == 1:
            yield np.sort(batch)  # sorted: the pictures are mapped from disk


@dataclass(frozen=True)
class Augmented:
    """Epochs of augmented batches (float [N, 3, side, side] 0..255, labels [N]).

    Progressive resizing (Howard, fast.ai; Tan and Le, EfficientNetV2): early epochs see smaller pictures, which are
    several times cheaper and regularise, the last ones nearly the size that is served.
    """

    pictures: NDArray[np.uint8]
    labels: Tensor
    size: int
    batch_size: int
    epochs: int
    seed: int

    def side(self, epoch: int) -> int:
        """Side of the training crops in `epoch`: from half of `size` to seven eighths, in steps of 16 pixels."""
        grown = min(1.0, epoch / (0.8 * self.epochs)) * 0.375 + 0.5
        return max(16, int(self.size * grown / 16) * 16)

    def __call__(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        random = torch.Generator().manual_seed(hash((self.seed, epoch)) % 2**31)
        for batch in shuffled(len(self.pictures), self.batch_size, self.seed, epoch):
            images = to_channels(self.pictures[batch]).float()
            yield coloured(cropped(images, self.side(epoch), random), random), self.labels[batch]


def cropped(images: Tensor, side: int, random: torch.Generator) -> Tensor:
    """A random part of each picture, half of them mirrored, float [N, 3, side, side] (Szegedy et al. 2015).

    One sampling of the whole batch: picture by picture it took as long as the network's training step.
    """
    count = len(images)
    area = torch.empty(count).uniform_(SMALLEST_CROP, 1.0, generator=random)
    aspect = torch.empty(count).uniform_(-STRETCH, STRETCH, generator=random).exp()
    width, height = (area * aspect).sqrt().clamp(max=1.0), (area / aspect).sqrt().clamp(max=1.0)
    left, top = (torch.rand(count, generator=random) * 2 - 1 for _ in range(2))
    mirror = torch.randint(0, 2, (count,), generator=random) * 2.0 - 1.0
    zero = torch.zeros(count)
    across = torch.stack([width * mirror, zero, left * (1 - width)], 1)
    down = torch.stack([zero, height, top * (1 - height)], 1)
    grid = functional.affine_grid(torch.stack([across, down], 1), [count, 3, side, side], align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def coloured(images: Tensor, random: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation of each picture changed by up to COLOUR, values kept in 0..255."""
    brightness, contrast, saturation = (
        torch.empty(len(images), 1, 1, 1).uniform_(1 - COLOUR, 1 + COLOUR, generator=random) for _ in range(3)
    )
    images = images * brightness
    images = torch.lerp(images.mean((1, 2, 3), keepdim=True), images, contrast)
    return torch.lerp(images.mean(1, keepdim=True), images, saturation).clamp_(0, 255)
