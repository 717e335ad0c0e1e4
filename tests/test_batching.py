from __future__ import annotations

import asyncio

import pytest

from diptych.contract import Priority
from diptych.errors import DeadlinePassed
from tests.batches import Engine, busy, serving, submit_all


async def test_each_caller_gets_its_own_result() -> None:
    engine = Engine()
    engine.open.set()
    async with serving(engine.run, max_items=4, in_flight=2) as batcher:
        assert await submit_all(batcher, list(range(10))) == list(range(0, 20, 2))


async def test_an_idle_engine_starts_at_once_and_work_gathers_while_it_is_busy() -> None:
    engine = Engine()
    async with serving(engine.run) as batcher:
        first = asyncio.create_task(batcher.submit(1))
        await asyncio.sleep(0.01)
        assert engine.batches == [[1]]
        rest = asyncio.create_task(submit_all(batcher, [2, 3, 4]))
        await asyncio.sleep(0.01)
        assert engine.batches == [[1]]
        engine.open.set()
        await asyncio.gather(first, rest)
    assert engine.batches == [[1], [2, 3, 4]]


async def test_a_batch_holds_no_more_than_it_may() -> None:
    engine = Engine()
    async with busy(engine, max_items=3) as batcher:
        rest = asyncio.create_task(submit_all(batcher, [5, 6, 7, 8]))
        await asyncio.sleep(0.01)
        engine.open.set()
        await rest
    assert engine.batches[1:] == [[5, 6, 7], [8]]


def by_tens(items: list[int]) -> list[list[int]]:
    """Items of the same ten are cheaper together."""
    places = range(len(items))
    return [[p for p in places if items[p] // 10 == ten] for ten in {item // 10 for item in items}]


async def test_the_group_of_the_most_urgent_goes_first_whatever_else_waits() -> None:
    engine = Engine()
    async with busy(engine, groups=by_tens) as batcher:
        rest = asyncio.create_task(submit_all(batcher, [31, 12, 33, 14, 25]))
        await asyncio.sleep(0.01)
        engine.open.set()
        assert await rest == [62, 24, 66, 28, 50]
    assert engine.batches[1:] == [[31, 33], [12, 14], [25]]


async def test_who_waits_for_another_group_is_grouped_anew_with_who_has_come_meanwhile() -> None:
    engine = Engine()
    now = asyncio.get_running_loop().time()
    async with busy(engine, groups=by_tens) as batcher:
        waiting = [asyncio.create_task(batcher.submit(item)) for item in (31, 12)]
        await asyncio.sleep(0.01)
        waiting += [asyncio.create_task(batcher.submit(14))]
        waiting += [asyncio.create_task(batcher.submit(25, deadline=now + 60))]
        await asyncio.sleep(0.01)
        engine.open.set()
        await asyncio.gather(*waiting)
    assert engine.batches[1:] == [[25], [31], [12, 14]]


async def test_groups_of_bulk_work_have_their_share_and_no_more() -> None:
    engine = Engine()
    async with busy(engine, groups=by_tens, max_items=64) as batcher:
        flood = [
            asyncio.create_task(batcher.submit(90, priority=Priority.BULK)) for _ in range(400)
        ]
        rest = asyncio.create_task(submit_all(batcher, [10 * (i % 8) + 1 for i in range(320)]))
        await asyncio.sleep(0.01)
        engine.open.set()
        await asyncio.gather(rest, *flood)
    hurried = [batch[0] != 90 for batch in engine.batches[1:]]
    last = len(hurried) - hurried[::-1].index(True)
    bulk = sum(len(batch) for batch in engine.batches[1 : last + 1] if batch[0] == 90)
    assert 20 <= bulk <= 120  # an eighth of 320, and a batch of them more


async def test_the_nearest_deadline_goes_first_and_bulk_goes_last() -> None:
    engine = Engine()
    now = asyncio.get_running_loop().time()
    async with busy(engine, max_items=1) as batcher:
        waiting = [
            asyncio.create_task(batcher.submit(1, priority=Priority.BULK)),
            asyncio.create_task(batcher.submit(2)),
            asyncio.create_task(batcher.submit(3, deadline=now + 60)),
            asyncio.create_task(batcher.submit(4, deadline=now + 50)),
        ]
        await asyncio.sleep(0.01)
        engine.open.set()
        await asyncio.gather(*waiting)
    assert engine.batches[1:] == [[4], [3], [2], [1]]


async def test_bulk_keeps_a_share_of_every_batch_so_that_it_moves() -> None:
    engine = Engine()
    async with busy(engine, max_items=8) as batcher:
        bulk = asyncio.create_task(submit_all(batcher, [100] * 3, priority=Priority.BULK))
        calls = asyncio.create_task(submit_all(batcher, [1] * 20))
        await asyncio.sleep(0.01)
        engine.open.set()
        await asyncio.gather(bulk, calls)
    assert [batch.count(100) for batch in engine.batches[1:]] == [1, 1, 1]
    assert [batch.count(1) for batch in engine.batches[1:]] == [7, 7, 6]


async def test_an_abandoned_item_is_never_computed() -> None:
    engine = Engine()
    async with busy(engine) as batcher:
        gone = asyncio.create_task(batcher.submit(7))
        kept = asyncio.create_task(batcher.submit(8))
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.sleep(0)
        engine.open.set()
        assert (await kept).result == 16
    assert engine.batches == [[0], [8]]


async def test_an_expired_item_is_refused_and_never_computed() -> None:
    engine = Engine()
    now = asyncio.get_running_loop().time()
    async with busy(engine) as batcher:
        late = asyncio.create_task(batcher.submit(7, deadline=now + 0.02))
        await asyncio.sleep(0.05)
        engine.open.set()
        with pytest.raises(DeadlinePassed):
            await late
    assert engine.batches == [[0]]


async def test_a_batch_is_given_the_time_its_most_patient_caller_has() -> None:
    engine, given = Engine(), []

    async def run(items: list[int], timeout_s: float) -> list[int]:
        given.append(timeout_s)
        return await engine.run(items)

    now = asyncio.get_running_loop().time()
    async with serving(run) as batcher:
        occupied = asyncio.create_task(batcher.submit(0))
        await asyncio.sleep(0.01)
        rest = [asyncio.create_task(batcher.submit(n, deadline=now + n)) for n in (5, 9)]
        await asyncio.sleep(0.01)
        engine.open.set()
        await asyncio.gather(occupied, *rest)
    assert given[0] == float("inf")
    assert 8.5 < given[1] < 9


async def test_waiting_and_computing_are_timed_apart() -> None:
    async def slow(items: list[int], timeout_s: float = 0) -> list[int]:
        await asyncio.sleep(0.05)
        return items

    async with serving(slow, max_items=1) as batcher:
        first, second = await asyncio.gather(batcher.submit(1), batcher.submit(2))
    assert first.queue_s < 0.04 <= second.queue_s
    assert first.engine_s >= 0.04
