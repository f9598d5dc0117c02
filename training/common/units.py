"""Numbers of bytes and pixels as people say them."""

from __future__ import annotations

import math

UNITS = ("GB", "MB", "kB")


def size(count: int) -> str:
    """10485760 -> "10 MB". Never more than there are: a multiple of 1024 counts by powers of 1024, others by 1000."""
    base = 1000 if count % 1024 else 1024
    for unit, power in zip(UNITS, (3, 2, 1), strict=True):
        if count >= base**power:
            return f"{_tenths(count, base**power)} {unit}"
    return f"{count} bytes"


def pixels(count: int) -> str:
    """50000000 -> "50 megapixels", 500000 -> "500,000 pixels"."""
    return f"{_tenths(count, 10**6)} megapixels" if count >= 10**6 else f"{count:,} pixels"


def _tenths(count: int, unit: int) -> str:
    return f"{math.floor(10 * count / unit) / 10:g}"
