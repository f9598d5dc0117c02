"""What holds for all tests: they ask servers of their own, whatever proxies and keys this machine's shell has set."""

from __future__ import annotations

import os

from training.command import spare_loopback

spare_loopback()
for name in ("API_KEYS", "API_KEYS_FILE", "API_KEY"):
    os.environ.pop(name, None)
