"""Work that would hold up the event loop, on threads: the hurried first, the late not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

from diptych.batching import Batcher
from diptych.contract import Priority
from diptych.threads import give_way

Result = TypeVar("Result")


class Decoders:
    """So many threads for decoding images and tokenizing long texts.

    Interactive work goes before bulk work, the nearest deadline first: a thousand pictures of a
    bulk caller do not stand before the one of an interactive caller.
    """

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(
            threads, thread_name_prefix="decode", initializer=give_way
        )
        self._queue: Batcher[Callable[[], Any], Any] = Batcher(
            self._run, max_items=1, in_flight=threads, digest=lambda work: b""
        )

    def expected_s(self, items: int) -> float:
        """How long so many would take, at the pace of late; 0 while that is not known."""
        return self._queue.pace.expected_s(items)

    @property
    def waiting(self) -> int:
        """How much waits for a thread."""
        return len(self._queue)

    async def run(
        self, work: Callable[[], Result], *, priority: Priority, deadline: float
    ) -> Result:
        """What `work` returns or raises. `deadline` is a time of the event loop's clock.

        Raises:
            DeadlinePassed: `deadline` came before `work` began.
            EngineUnavailable: `serving` has ended.
        """
        answer = await self._queue.submit(work, priority=priority, deadline=deadline)
        return cast(Result, answer.result)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Work is done within this."""
        task = asyncio.create_task(self._queue.serve())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._threads.shutdown(cancel_futures=True)

    async def _run(self, batch: list[Callable[[], Any]], timeout_s: float) -> list[Any]:
        loop = asyncio.get_running_loop()
        return [await loop.run_in_executor(self._threads, work) for work in batch]
