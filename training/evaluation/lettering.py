"""How class names stand in plots: as they are, whatever their signs mean to Matplotlib."""

from __future__ import annotations

import matplotlib
from matplotlib import font_manager

# After Matplotlib's own font, which has neither Chinese, Japanese nor Korean: those of the systems that have them.
FALLBACKS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "IPAexGothic", "Hiragino Sans", "PingFang SC",
    "Arial Unicode MS", "Noto Sans", "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Thai",
)  # fmt: skip


def use() -> None:
    """Draw `$` as a dollar, not as the begin of mathematics, and letters by the first installed font that has them."""
    installed = set(font_manager.get_font_names())
    matplotlib.rcParams["text.parse_math"] = False
    matplotlib.rcParams["font.family"] = ["DejaVu Sans", *(name for name in FALLBACKS if name in installed)]


def shown(name: str) -> str:
    """`name` as the label of a line: a legend leaves out what begins with `_`, so a space of no width comes first."""
    return f"\N{ZERO WIDTH SPACE}{name}" if name.startswith("_") else name
