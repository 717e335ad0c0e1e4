from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from diptych.contract import Priority
from diptych.decoding import Decoders
from diptych.errors import DeadlinePassed

NEVER = float("inf")


@asynccontextmanager
async def serving(threads: int) -> AsyncIterator[Decoders]:
    decoders = Decoders(threads)
    async with decoders.serving():
        yield decoders


async def test_work_is_done_on_a_thread_and_its_error_is_the_callers() -> None:
    async with serving(2) as decoders:
        found = await decoders.run(
            threading.current_thread, priority=Priority.INTERACTIVE, deadline=NEVER
        )
        assert found is not threading.main_thread()
        with pytest.raises(ZeroDivisionError):
            await decoders.run(lambda: 1 / 0, priority=Priority.INTERACTIVE, deadline=NEVER)


async def finished(works: list[tuple[str, Priority]]) -> list[str]:
    """In which order one thread does what all came while it was busy."""
    order: list[str] = []
    held = threading.Event()
    async with serving(1) as decoders:
        busy = asyncio.create_task(
            decoders.run(held.wait, priority=Priority.INTERACTIVE, deadline=NEVER)
        )
        await asyncio.sleep(0.02)
        calls = [
            decoders.run(partial(order.append, name), priority=priority, deadline=NEVER)
            for name, priority in works
        ]
        rest = asyncio.gather(*calls)
        await asyncio.sleep(0.02)
        held.set()
        await asyncio.gather(busy, rest)
    return order


async def test_an_interactive_picture_goes_before_those_of_a_bulk_caller() -> None:
    works = [("bulk", Priority.BULK)] * 5 + [("one", Priority.INTERACTIVE)]
    assert (await finished(works)).index("one") == 0


async def test_bulk_work_moves_however_much_interactive_work_there_is() -> None:
    works = [("bulk", Priority.BULK)] * 2 + [("one", Priority.INTERACTIVE)] * 40
    order = await finished(works)
    assert [at for at, name in enumerate(order) if name == "bulk"] == [7, 15]


async def test_late_work_is_not_begun() -> None:
    begun: list[int] = []
    held = threading.Event()
    async with serving(1) as decoders:
        busy = asyncio.create_task(
            decoders.run(held.wait, priority=Priority.INTERACTIVE, deadline=NEVER)
        )
        await asyncio.sleep(0.02)
        soon = asyncio.get_running_loop().time() + 0.01
        late = asyncio.create_task(
            decoders.run(lambda: begun.append(1), priority=Priority.INTERACTIVE, deadline=soon)
        )
        await asyncio.sleep(0.05)
        held.set()
        await busy
        with pytest.raises(DeadlinePassed):
            await late
    assert not begun
