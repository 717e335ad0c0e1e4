"""How fast the calls of late were, and so how long work would take."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence

SLACK = 1.15  # of how long work is expected to take
_COLD_S = 5.0  # after the engine was away or silent nothing is learnt: it is slow at first
_WORTH = 4  # times what a call itself costs: smaller ones waste the engine


class Pace:
    """Of one queue's calls. All times are seconds of one clock."""

    def __init__(self, *, in_flight: int, max_items: int, call_items: float) -> None:
        """`call_items`: what a call costs beside its items, in items."""
        self._max_items = max_items
        self._call_items = call_items
        self._finished = -math.inf  # the newest call
        self._in_flight = in_flight
        # Of so many, most have the engine's own pace, even where all that can hang together do.
        self._latest: deque[float] = deque(maxlen=2 * in_flight + 1)
        self._cold_until = -math.inf
        self.item_s = 0.0  # what one item adds to a call; 0: not known yet
        self.worth = min(math.ceil(_WORTH * call_items), max_items)  # items, of a call worth making

    def expected_s(self, items: int) -> float:
        """How long so many items would take; 0 while that is not known."""
        calls = math.ceil(items / self._max_items)
        return self.item_s * (items + self._call_items * calls)

    def answered_s(self, ahead: int) -> float:
        """How long until an item is answered that has so many ahead; 0 while that is not known.

        Those behind it are in its call: where that had to be over at once, it would have few items
        and keep the engine from all who wait. So there is time for as many as are worth a call.
        """
        return self.expected_s(ahead + min(ahead, self.worth))

    def in_time(self, deadlines: Sequence[float], now: float) -> tuple[int, int]:
        """Which of those that wait, in this order, go into one call: from one number up to another.

        It is over before the first deadline of those in it. Those before the first number go
        without: they could be in time only in a call too small to be worth its cost, which would
        leave those behind them no more time than for such calls either.
        """
        begin = 0
        while True:
            end = self._most_in_time(deadlines, begin, now)
            if end == len(deadlines) or end - begin >= self.worth:
                return begin, end
            if deadlines[begin] > deadlines[end]:  # not what is in a hurry here
                return begin, end
            next_ones = min(self.worth, len(deadlines) - end)
            taken_s = self.expected_s(end - begin) + self.expected_s(next_ones)
            if now + SLACK * taken_s <= deadlines[end]:
                return begin, end
            begin += 1

    def _most_in_time(self, deadlines: Sequence[float], begin: int, now: float) -> int:
        """The end of the longest call in time for all in it; it has one, where there is any."""
        soonest = math.inf
        for end in range(begin + 1, len(deadlines) + 1):
            soonest = min(soonest, deadlines[end - 1])
            items = end - begin
            if items > 1 and now + SLACK * self.expected_s(items) > soonest:
                return end - 1
        return len(deadlines)

    def ran(self, started: float, finished: float, items: int) -> None:
        """A call of so many items was answered."""
        item_s = (finished - max(started, self._finished)) / (items + self._call_items)
        self._finished = finished
        if finished < self._cold_until:
            return
        self._latest.append(item_s)
        if len(self._latest) > self._in_flight:
            self.item_s = statistics.median_low(self._latest)

    def stalled(self, started: float, now: float) -> None:
        """A call got no answer in time."""
        if self._finished < started:  # the engine may be busy, but then others would have had some
            self._cold_until = now + _COLD_S

    def lost(self, now: float) -> None:
        """The engine is away: what it could do says nothing of what it will."""
        self._latest.clear()
        self.item_s, self._cold_until = 0.0, now + _COLD_S
