"""How fast the calls of late were, and so how long work would take."""

from __future__ import annotations

import math
from collections import deque

SLACK = 1.15  # of how long work is expected to take
_COLD_S = 5.0  # after the engine was away or silent nothing is learnt: it is slow at first


class Pace:
    """Of one queue's calls. All times are seconds of one clock."""

    def __init__(self, *, in_flight: int, max_items: int, call_items: float) -> None:
        """`call_items`: what a call costs beside its items, in items."""
        self._max_items = max_items
        self._call_items = call_items
        self._finished = -math.inf  # the newest call
        # One more than can hang together: the best of them is the engine's own pace.
        self._latest: deque[float] = deque(maxlen=in_flight + 1)
        self._cold_until = -math.inf
        self.item_s = 0.0  # what one item adds to a call; 0: not known yet

    def expected_s(self, items: int) -> float:
        """How long so many items would take; 0 while that is not known."""
        calls = math.ceil(items / self._max_items)
        return self.item_s * (items + self._call_items * calls)

    def ran(self, started: float, finished: float, items: int) -> None:
        """A call of so many items was answered."""
        item_s = (finished - max(started, self._finished)) / (items + self._call_items)
        self._finished = finished
        if finished < self._cold_until:
            return
        self._latest.append(item_s)
        if len(self._latest) == self._latest.maxlen:
            self.item_s = min(self._latest)

    def stalled(self, started: float, now: float) -> None:
        """A call got no answer in time."""
        if self._finished < started:  # the engine may be busy, but then others would have had some
            self._cold_until = now + _COLD_S

    def lost(self, now: float) -> None:
        """The engine is away: what it could do says nothing of what it will."""
        self._latest.clear()
        self.item_s, self._cold_until = 0.0, now + _COLD_S
