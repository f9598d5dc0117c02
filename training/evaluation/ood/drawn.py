"""Pictures that nobody photographed: noise, drawings, pages of text, screens. Each is drawn from a random generator."""

from __future__ import annotations

import string
from functools import cache

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 400, 360  # pixels, as photographs on the web
INK, PAPER = (30, 30, 40), (250, 249, 246)
_LETTERS = string.ascii_lowercase + 6 * " "  # a sixth or so of a text is spaces

Colour = tuple[int, int, int]
Point = tuple[int, int]


def noise(random: Generator) -> Image.Image:
    """Grain of the size of 1 to 32 pixels, grey or coloured, Gaussian, uniform or salt and pepper."""
    grain = int(2 ** random.integers(0, 6))
    shape = (-(-HEIGHT // grain), -(-WIDTH // grain), int(random.choice([1, 3])))
    kinds = (
        lambda: random.normal(128, random.uniform(20, 80), shape),
        lambda: random.uniform(0, 255, shape),
        lambda: random.choice([0.0, 255.0], shape),
    )
    values = np.broadcast_to(kinds[random.integers(len(kinds))](), (*shape[:2], 3))
    small = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    smooth = Image.Resampling.BICUBIC if random.random() < 0.5 else Image.Resampling.NEAREST
    return small.resize((shape[1] * grain, shape[0] * grain), smooth).crop((0, 0, WIDTH, HEIGHT))


def drawing(random: Generator) -> Image.Image:
    """Outlines and flat shapes on paper, as from a child's hand or a drawing program."""
    picture, pen = _sheet(PAPER if random.random() < 0.6 else _colour(random))
    filled = random.random() < 0.5
    for _ in range(random.integers(4, 16)):
        colour, width = (_colour(random) if filled else INK), int(random.integers(2, 7))
        (left, top), (right, bottom) = _point(random), _point(random)
        box = (min(left, right), min(top, bottom), max(left, right) + 8, max(top, bottom) + 8)
        fill = colour if filled else None
        shape = random.integers(4)
        if shape == 0:
            pen.ellipse(box, fill, INK, width)
        elif shape == 1:
            pen.rectangle(box, fill, INK, width)
        elif shape == 2:
            pen.polygon([_point(random) for _ in range(3)], fill, INK, width)
        else:
            pen.line([_point(random) for _ in range(random.integers(2, 8))], colour, width, joint="curve")
    return picture


def text(random: Generator) -> Image.Image:
    """A page of words that mean nothing, black on white or white on black, at times a little askew."""
    paper, ink = (PAPER, INK) if random.random() < 0.75 else (INK, PAPER)
    picture, pen = _sheet(paper)
    _write(pen, random, (12, 10, WIDTH - 12, HEIGHT - 10), int(random.integers(10, 32)), ink)
    return picture.rotate(random.uniform(-4, 4), Image.Resampling.BICUBIC, fillcolor=paper)


def screen(random: Generator) -> Image.Image:
    """A program's window: title, side bar, then words, a table or a chart."""
    dark = random.random() < 0.3
    ground, ink, accent = ((28, 30, 36), (220, 222, 226), _colour(random)) if dark else (PAPER, INK, _colour(random))
    picture, pen = _sheet(ground)
    title, side = int(random.integers(18, 36)), int(random.integers(0, 120))
    pen.rectangle((0, 0, WIDTH, title), accent)
    pen.text((8, 3), _words(random, 3), PAPER, _font(title - 8))
    pen.rectangle((0, title, side, HEIGHT), tuple(int(0.9 * value) for value in ground))
    for top in range(title + 10, HEIGHT, 24):
        pen.text((6, top), _words(random, 1)[: side // 8], ink, _font(11))
    inside = (side + 12, title + 12, WIDTH - 12, HEIGHT - 12)
    (_paragraphs, _table, _chart)[random.integers(3)](pen, random, inside, ink, accent)
    return picture


Box = tuple[int, int, int, int]


def _paragraphs(pen: ImageDraw.ImageDraw, random: Generator, box: Box, ink: Colour, accent: Colour) -> None:
    left, top, right, bottom = box
    pen.text((left, top), _words(random, 2), accent, _font(20))
    _write(pen, random, (left, top + 32, right, bottom - 36), 12, ink)
    pen.rounded_rectangle((left, bottom - 26, left + 80, bottom), 6, accent)


def _table(pen: ImageDraw.ImageDraw, random: Generator, box: Box, ink: Colour, accent: Colour) -> None:
    left, top, right, bottom = box
    columns = int(random.integers(2, 6))
    for row, y in enumerate(range(top, bottom - 16, 20)):
        for column in range(columns):
            cell = _words(random, 1)[:8] if row == 0 else str(random.integers(100_000))
            pen.text((left + column * (right - left) // columns, y), cell, accent if row == 0 else ink, _font(12))
        pen.line((left, y + 17, right, y + 17), ink)


def _chart(pen: ImageDraw.ImageDraw, random: Generator, box: Box, ink: Colour, accent: Colour) -> None:
    left, top, right, bottom = box
    heights = random.uniform(0.05, 1, random.integers(4, 14)) * (bottom - top)
    across = np.linspace(left + 6, right - 6, len(heights) + 1)
    if random.random() < 0.5:
        for start, end, height in zip(across[:-1], across[1:], heights, strict=True):
            pen.rectangle((start + 2, bottom - height, end - 2, bottom), accent)
    else:
        pen.line(list(zip(across[:-1], bottom - heights, strict=True)), accent, 3)
    pen.line((left, top, left, bottom, right, bottom), ink, 2)


def _sheet(colour: Colour) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.new("RGB", (WIDTH, HEIGHT), colour)
    return picture, ImageDraw.Draw(picture)


def _write(pen: ImageDraw.ImageDraw, random: Generator, box: Box, size: int, ink: Colour) -> None:
    """Lines of words, each as wide as the box allows."""
    left, top, right, bottom = box
    font = _font(size)
    fitting = max(1, int((right - left) / (0.55 * size)))
    for y in range(top, bottom - size, round(1.4 * size)):
        pen.text((left, y), _words(random, fitting // 6 + 1), ink, font)


def _words(random: Generator, count: int) -> str:
    """About `count` words of random letters."""
    letters = random.integers(len(_LETTERS), size=6 * count)
    return "".join(_LETTERS[letter] for letter in letters).strip().capitalize()


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(8, size))


def _colour(random: Generator) -> Colour:
    red, green, blue = (int(value) for value in random.integers(0, 256, 3))
    return red, green, blue


def _point(random: Generator) -> Point:
    return int(random.integers(WIDTH)), int(random.integers(HEIGHT))
