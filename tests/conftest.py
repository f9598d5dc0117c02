"""What holds for all tests: they call servers of their own, whatever proxy this machine has."""

from __future__ import annotations

from training.command import spare_loopback

spare_loopback()
