"""What keeps calls away from a server that does not answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from diptych.errors import EngineFailed, EngineUnavailable, Overloaded


class Breaker:
    """Refuses calls at once after several in a row found nobody there; then lets one try.

    Without it every batch would wait for a far end that is gone, and its return would be met by
    everything that had piled up.
    """

    def __init__(
        self,
        *,
        failures: int = 5,  # in a row; fewer, and one broken connection would look like an outage
        open_s: float = 1.0,  # between tries; added to every outage
        clock: Callable[[], float] = time.monotonic,
        told: Callable[[bool], None] = lambda is_open: None,
    ) -> None:
        """`told`: called whenever it opens or closes."""
        self._limit = failures
        self._open_s = open_s
        self._clock = clock
        self._told = told
        self._failures = 0
        self._next_try = 0.0  # of the clock; while open, nobody passes before
        self._trying = False

    @property
    def is_well(self) -> bool:
        """Whether somebody was there the last time."""
        return not self._failures

    @contextmanager
    def watched(self) -> Iterator[bool]:
        """One call within. An error for an answer is an answer too; EngineUnavailable is none.

        Yields what `is_well` was before.

        Raises:
            EngineUnavailable: at once, while open; or whatever the call raised.
        """
        trial = self._admit()
        try:
            yield self.is_well
        except EngineUnavailable:
            self._failures += 1
            if self._failures == self._limit:
                self._told(True)
            self._rest()
            raise
        except (EngineFailed, Overloaded):
            self._answered()
            raise
        except BaseException:  # the caller ran out of time, or left: nothing was learnt
            if trial:
                self._rest()
            raise
        else:
            self._answered()
        finally:
            self._trying = self._trying and not trial

    def _admit(self) -> bool:
        """Whether the call let in is the one that tries."""
        if self._failures < self._limit:
            return False
        if self._trying or self._clock() < self._next_try:
            raise EngineUnavailable("the engine does not answer; it is tried again within seconds")
        self._trying = True
        return True

    def _answered(self) -> None:
        if self._failures >= self._limit:
            self._told(False)
        self._failures = 0

    def _rest(self) -> None:
        self._next_try = self._clock() + self._open_s
