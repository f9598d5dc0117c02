"""Places of those who wait: counted over all workers, and shared out among clients."""

from __future__ import annotations

import time
from collections import Counter

from training.serving.connections.shared_counters import Count, SharedCounters

OTHERS_S = 1.0  # another client that asked so lately waits too, though it may have been refused


class Places:
    """`limit` places in all, of which one worker gives at most `share`. Of that a client gets no more than half while
    others ask; but one request of who holds nothing, and a request of any size where nobody waits."""

    def __init__(self, counters: SharedCounters, figure: Count, limit: int, share: int) -> None:
        self._counters, self._figure = counters, figure
        self._limit, self._share = limit, share
        self._held: Counter[str] = Counter()
        self._asked, self._last = 0.0, ""  # when the last client asked, and who that was
        self._another_asked = 0.0  # when the last client asked that was not that one

    @property
    def taken(self) -> int:
        """By all workers."""
        return self._counters.all(self._figure)

    def has_room(self, client: str, places: int, before: int = 0) -> bool:
        """Whether a request of the client, which holds so many places already, gets so many more."""
        self._note(client)
        taken = self.taken
        if taken == before:
            return True
        if taken + places > self._limit or self._counters.mine(self._figure) + places > self._share:
            return False
        held = self._held.get(client, 0)
        return held == 0 or held + places <= self._share // 2 or self._asked - self._another_asked > OTHERS_S

    def take(self, client: str, places: int) -> None:
        """Give them to the client; `give_back` must follow."""
        self._counters.add(self._figure, places)
        self._held[client] += places

    def give_back(self, client: str, places: int) -> None:
        """The client needs them no longer."""
        self._counters.add(self._figure, -places)
        self._held[client] -= places
        if not self._held[client]:
            del self._held[client]

    def _note(self, client: str) -> None:
        if client != self._last:
            self._another_asked, self._last = self._asked, client
        self._asked = time.monotonic()
