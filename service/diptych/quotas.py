"""What one caller may take: how many inputs at once, and how many a second."""

from __future__ import annotations

import asyncio
import math
import time
from contextvars import ContextVar
from typing import Protocol

from diptych.contract import Priority
from diptych.errors import Overloaded

_SOON_S = 0.25  # when to try again where it depends on the caller's own other calls


class Quota:
    """Counts one caller's inputs, whatever calls and streams they come in.

    The pace is a bucket that holds one second's worth. A call is let in while anything is left
    and takes all it needs, so that the bucket may owe: the average holds, and a request larger
    than the bucket is not shut out for ever.
    """

    def __init__(self, inputs: float = math.inf, inputs_per_s: float = math.inf) -> None:
        self.inside = 0
        self._left = asyncio.Event()  # set, and replaced, whenever an input leaves
        self._level = 0.0
        self._filled = time.monotonic()
        self.limit(inputs, inputs_per_s)
        self._level = self._burst

    def limit(self, inputs: float, inputs_per_s: float) -> None:
        """Other limits from now on; what is inside stays, and what is owed is owed."""
        self._inputs = inputs
        self._inputs_per_s = inputs_per_s
        self._burst = max(1.0, inputs_per_s)

    def check(self, inputs: int = 1) -> None:
        """Whether a call of this many inputs would be let in now.

        Raises:
            Overloaded: it would not; says when to try again.
        """
        # Like the server's own bound: one request is always let in where nothing of its caller is.
        if self.inside and self.inside + inputs > self._inputs:
            raise Overloaded(
                f"{self.inside} inputs of this caller are being worked on; "
                f"{self._inputs:.0f} are allowed at once",
                "over_quota",
                retry_after_s=_SOON_S,
            )
        if self._fill() <= 0:
            raise Overloaded(
                f"this caller may send {self._inputs_per_s:g} inputs a second",
                "over_quota",
                retry_after_s=(1 - self._level) / self._inputs_per_s,
            )

    def begin(self, inputs: int) -> None:
        """Count these inputs until `end`.

        Raises:
            Overloaded: at once, where they are too many; then nothing is counted.
        """
        self.check(inputs)
        self._spend(inputs)
        self.inside += inputs

    async def wait(self, inputs: int) -> None:
        """As `begin`, but wait until they are allowed: streams are slowed and not refused."""
        self._fill()
        self._spend(inputs)
        try:
            if self._level < 0:
                await asyncio.sleep(-self._level / self._inputs_per_s)
            while self.inside and self.inside + inputs > self._inputs:
                await self._left.wait()
        except asyncio.CancelledError:  # given up: what was not sent is not owed
            self._spend(-inputs)
            raise
        self.inside += inputs

    def end(self, inputs: int) -> None:
        """They are answered, or given up."""
        self.inside -= inputs
        self._left.set()
        self._left = asyncio.Event()

    def _spend(self, inputs: int) -> None:
        if self._inputs_per_s != math.inf:
            self._level -= inputs

    def _fill(self) -> float:
        now = time.monotonic()
        if self._inputs_per_s == math.inf:
            self._level = self._burst
        else:
            gained = (now - self._filled) * self._inputs_per_s
            self._level = min(self._burst, self._level + gained)
        self._filled = now
        return self._level


class Allowance(Protocol):
    """What a call rests on. Implemented by `gateway.identity.Grant`."""

    @property
    def name(self) -> str:
        """Whose call it is."""

    @property
    def priority(self) -> Priority:
        """The highest it gets."""

    @property
    def quota(self) -> Quota:
        """Shared by all calls of one caller."""

    def check(self) -> None:
        """Raises Unidentified once what the caller showed counts no longer."""


# Of the call being served, in its own task and all it starts; None where callers are not known.
OF_CALL: ContextVar[Allowance | None] = ContextVar("OF_CALL", default=None)
