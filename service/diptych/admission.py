"""How much may be inside at once; past it, callers are refused, not delayed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from diptych.contract import Priority
from diptych.errors import Overloaded
from diptych.quotas import OF_CALL


class Admission:
    """Counts the inputs inside, and their encoded bytes, from arrival to answer.

    This is the one bound on everything that waits: for a decoder, for a batch, for the engine.
    Bulk work may fill half of it, so that it never shuts interactive work out. Where callers are
    known, whatever they send passes their own quota here as well.
    """

    def __init__(self, *, max_inputs: int, max_bytes: int) -> None:
        self._max_inputs = max_inputs
        self._max_bytes = max_bytes
        self._left = asyncio.Event()  # set, and replaced, whenever somebody leaves
        self.inputs = 0
        self.bytes = 0

    @contextmanager
    def enter(self, inputs: int, size_bytes: int, priority: Priority) -> Iterator[None]:
        """Be inside for the length of a `with`.

        Raises:
            Overloaded: at once, when there is no room. One request is always let into an empty
                server, whatever its size.
            Unidentified: what the caller showed counts no longer.
        """
        if not self._fits(inputs, size_bytes, priority):
            raise Overloaded(f"{self.inputs} inputs are already being worked on")
        if (allowance := OF_CALL.get()) is not None:
            allowance.check()
            allowance.quota.begin(inputs)
        self._begin(inputs, size_bytes)
        try:
            yield
        finally:
            self._end(inputs, size_bytes)
            if allowance is not None:
                allowance.quota.end(inputs)

    @asynccontextmanager
    async def wait(self, inputs: int, size_bytes: int, priority: Priority) -> AsyncIterator[None]:
        """As `enter`, but wait for room: for streams, whose callers are slowed and not refused."""
        if (allowance := OF_CALL.get()) is not None:
            await allowance.quota.wait(inputs)
        try:
            while not self._fits(inputs, size_bytes, priority):
                await self._left.wait()
            if allowance is not None:
                allowance.check()  # a stream may be open for hours
            self._begin(inputs, size_bytes)
            try:
                yield
            finally:
                self._end(inputs, size_bytes)
        finally:
            if allowance is not None:
                allowance.quota.end(inputs)

    def _begin(self, inputs: int, size_bytes: int) -> None:
        self.inputs += inputs
        self.bytes += size_bytes

    def _end(self, inputs: int, size_bytes: int) -> None:
        self.inputs -= inputs
        self.bytes -= size_bytes
        self._left.set()
        self._left = asyncio.Event()

    def _fits(self, inputs: int, size_bytes: int, priority: Priority) -> bool:
        share = 2 if priority is Priority.BULK else 1
        return self.inputs == 0 or (
            self.inputs + inputs <= self._max_inputs // share
            and self.bytes + size_bytes <= self._max_bytes // share
        )
