"""Numbers as people say them."""

from __future__ import annotations

import pytest

from training.common.units import pixels, size


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (999, "999 bytes"),
        (10_000, "10 kB"),
        (16 * 1024, "16 kB"),
        (2_000_000, "2 MB"),
        (10 * 2**20, "10 MB"),
        (10 * 2**20 + 16 * 1024, "10 MB"),
        (10_499_999, "10.4 MB"),  # 10.5 would be more than there are
        (2**30, "1 GB"),
    ],
)
def test_bytes(count: int, said: str) -> None:
    assert size(count) == said


@pytest.mark.parametrize(
    ("count", "said"), [(500_000, "500,000 pixels"), (16_000_000, "16 megapixels"), (2_590_000, "2.5 megapixels")]
)
def test_pixels(count: int, said: str) -> None:
    assert pixels(count) == said
