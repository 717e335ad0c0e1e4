"""Results kept by content: bounded by bytes, computed once however many ask at once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from diptych.errors import DeadlinePassed, Overloaded

Value = TypeVar("Value")


class _Flight(Generic[Value]):
    """One computation that several callers wait for."""

    def __init__(self, task: asyncio.Future[Value]) -> None:
        self.task = task
        self.waiting = 0


class Cache(Generic[Value]):
    """The most recently used values, up to `max_bytes` of them; 0 keeps none.

    One flight per key: whoever asks for a key that is being computed waits for that computation.
    It is cancelled when nobody waits any more. Errors are never kept.
    """

    def __init__(self, max_bytes: int, size: Callable[[Value], int]) -> None:
        self._max_bytes = max_bytes
        self._size = size
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._flights: dict[tuple[Hashable, Hashable], _Flight[Value]] = {}
        self.bytes = 0

    def find(self, key: Hashable) -> Value | None:
        """The value, if it is kept."""
        if (value := self._values.get(key)) is not None:
            self._values.move_to_end(key)
        return value

    async def get(
        self, key: Hashable, lane: Hashable, make: Callable[[], Awaitable[Value]]
    ) -> Value:
        """The value kept, or the one being computed, or `make()`'s.

        Callers of different lanes do not wait for each other's flights: a hurried caller would
        be as slow as the one who began. A flight ends at the deadline of the caller who began
        it; another then begins his own.

        Raises:
            Exception: whatever `make` raised.
        """
        if (value := self.find(key)) is not None:
            return value
        flight = self._flights.get((key, lane))
        if flight is None:
            return await self._wait((key, lane), self._begin(key, lane, make))
        try:
            return await self._wait((key, lane), flight)
        except DeadlinePassed:
            # It may not have landed yet, and would be met again, without end.
            if self._flights.get((key, lane)) is flight:
                del self._flights[key, lane]
            try:
                return await self.get(key, lane, make)
            except Overloaded as exc:  # there was room when it came: it is time that is short now
                raise DeadlinePassed("too little time was left to begin anew") from exc

    def _begin(
        self, key: Hashable, lane: Hashable, make: Callable[[], Awaitable[Value]]
    ) -> _Flight[Value]:
        flight = _Flight(asyncio.ensure_future(make()))
        self._flights[key, lane] = flight
        flight.task.add_done_callback(lambda _: self._land(key, lane, flight))
        return flight

    async def _wait(self, place: tuple[Hashable, Hashable], flight: _Flight[Value]) -> Value:
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._flights.pop(place, None)
                flight.task.cancel()

    def _land(self, key: Hashable, lane: Hashable, flight: _Flight[Value]) -> None:
        if self._flights.get((key, lane)) is flight:
            del self._flights[key, lane]
        if not flight.task.cancelled() and flight.task.exception() is None:
            self._keep(key, flight.task.result())

    def _keep(self, key: Hashable, value: Value) -> None:
        if (size := self._size(value)) > self._max_bytes or key in self._values:
            return
        self._values[key] = value
        self.bytes += size
        while self.bytes > self._max_bytes:
            _, oldest = self._values.popitem(last=False)
            self.bytes -= self._size(oldest)
