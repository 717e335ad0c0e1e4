"""Batchers of numbers, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from diptych.batching import Batcher

Run = Callable[[list[int], float], Awaitable[list[int]]]


class Engine:
    """Doubles numbers, remembers its batches, and works only when let."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()

    async def run(self, items: list[int], timeout_s: float = 0) -> list[int]:
        self.batches.append(items)
        await self.open.wait()
        return [2 * item for item in items]


class Steady:
    """Takes 10 ms an item, as for `call_items` more, and remembers how many came at once."""

    def __init__(self, call_items: float = 0.0) -> None:
        self.call_items = call_items
        self.batches: list[int] = []

    async def run(self, items: list[int], timeout_s: float) -> list[int]:
        self.batches.append(len(items))
        await asyncio.sleep(0.01 * (len(items) + self.call_items))
        return items

    @asynccontextmanager
    async def known(self) -> AsyncIterator[Batcher[int, int]]:
        """A batcher that has learnt the pace, none of whose batches are remembered."""
        async with serving(self.run, call_items=self.call_items) as batcher:
            for _ in range(3):
                await submit_all(batcher, [0] * 8)
            self.batches.clear()
            yield batcher


def digest(item: int) -> bytes:
    return str(item).encode()


@asynccontextmanager
async def serving(
    run: Run, *, in_flight: int = 1, max_items: int = 64, **how: Any
) -> AsyncIterator[Batcher[int, int]]:
    batcher = Batcher(run, max_items=max_items, in_flight=in_flight, digest=digest, **how)
    task = asyncio.create_task(batcher.serve())
    try:
        yield batcher
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def submit_all(batcher: Batcher[int, int], items: list[int], **how: Any) -> list[int]:
    answers = await asyncio.gather(*(batcher.submit(item, **how) for item in items))
    return [answer.result for answer in answers]


@asynccontextmanager
async def busy(engine: Engine, **limits: Any) -> AsyncIterator[Batcher[int, int]]:
    """A batcher whose engine is occupied with item 0 until `engine.open` is set."""
    async with serving(engine.run, **limits) as batcher:
        occupied = asyncio.create_task(batcher.submit(0))
        await asyncio.sleep(0.01)
        yield batcher
        engine.open.set()
        await occupied
