from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from diptych.batching import Batcher, BatchLimits
from diptych.contract import Priority
from diptych.errors import DeadlinePassed, EngineFailed, EngineUnavailable

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


def digest(item: int) -> bytes:
    return str(item).encode()


@asynccontextmanager
async def serving(run: Run, in_flight: int = 1, **limits: Any) -> AsyncIterator[Batcher[int, int]]:
    batcher = Batcher(run, BatchLimits(**limits), in_flight=in_flight, cost=float, digest=digest)
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


@asynccontextmanager
async def busy(engine: Engine, **limits: Any) -> AsyncIterator[Batcher[int, int]]:
    """A batcher whose engine is occupied with item 0 until `engine.open` is set."""
    async with serving(engine.run, **limits) as batcher:
        occupied = asyncio.create_task(batcher.submit(0))
        await asyncio.sleep(0.01)
        yield batcher
        engine.open.set()
        await occupied


async def test_a_batch_is_bounded_by_items_and_by_padded_cost() -> None:
    engine = Engine()
    async with busy(engine, max_items=3, max_cost=20) as batcher:
        rest = asyncio.create_task(submit_all(batcher, [5, 5, 5, 5, 11, 30, 1]))
        await asyncio.sleep(0.01)
        engine.open.set()
        await rest
    assert engine.batches[1:] == [[5, 5, 5], [5], [11], [30], [1]]


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


class Fragile:
    """Fails every batch that holds a negative number."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    async def run(self, items: list[int], timeout_s: float = 0) -> list[int]:
        self.batches.append(items)
        if min(items) < 0:
            raise EngineFailed("boom")
        return items


async def outcomes(batcher: Batcher[int, int], items: list[int]) -> list[object]:
    calls = (batcher.submit(item) for item in items)
    answers = await asyncio.gather(*calls, return_exceptions=True)
    return [a if isinstance(a, BaseException) else a.result for a in answers]


async def test_a_culprit_fails_alone_and_its_neighbours_are_answered() -> None:
    engine = Fragile()
    async with serving(engine.run) as batcher:
        *good, bad = await outcomes(batcher, [1, 2, 3, -1])
    assert good == [1, 2, 3]
    assert isinstance(bad, EngineFailed)
    assert engine.batches == [[1, 2, 3, -1], [1], [2], [3], [-1]]


async def test_a_known_culprit_runs_alone_from_the_start() -> None:
    engine = Fragile()
    async with serving(engine.run) as batcher:
        await outcomes(batcher, [1, -1])
        engine.batches.clear()
        await outcomes(batcher, [1, -1, 2])
    assert engine.batches == [[1], [-1], [2]]


class Mortal:
    """Dies of every batch that holds a negative number, and is back at once."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    async def run(self, items: list[int], timeout_s: float = 0) -> list[int]:
        self.batches.append(items)
        await asyncio.sleep(0)
        if min(items) < 0:
            raise EngineUnavailable("gone", midway=True)
        return items


async def test_what_the_engine_dies_of_is_found_out_and_its_neighbours_are_answered() -> None:
    engine = Mortal()
    async with serving(engine.run, in_flight=2) as batcher:
        items = [1, 2, -1, 3]
        found = await outcomes(batcher, items)  # who was it?
        assert [type(outcome) for outcome in found] == [EngineUnavailable] * 4
        for _ in range(2):  # again, as they were told: alone, and one after another
            one, two, bad, three = await outcomes(batcher, items)
            assert [one, two, three] == [1, 2, 3]
            assert isinstance(bad, EngineUnavailable)
        one, two, bad, three = await outcomes(batcher, items)
        assert [one, two, three] == [1, 2, 3]
        assert isinstance(bad, EngineFailed)
        assert str(bad) == "the engine dies of this input"
    assert engine.batches.count([-1]) == 2
    assert all(-1 not in batch or len(batch) == 1 for batch in engine.batches[1:])


async def test_those_who_must_run_alone_run_one_at_a_time() -> None:
    """Or a death would have two suspects, again and again."""
    running, most = 0, 0
    died = False

    async def run(items: list[int], timeout_s: float = 0) -> list[int]:
        nonlocal running, most, died
        if not died:
            died = True
            raise EngineUnavailable("gone", midway=True)
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return items

    async with serving(run, in_flight=3) as batcher:
        await outcomes(batcher, list(range(8)))
        assert await outcomes(batcher, list(range(8))) == list(range(8))
    assert most == 1


async def test_an_engine_that_was_away_before_leaves_nobody_suspect() -> None:
    batches, is_away = [], True

    async def run(items: list[int], timeout_s: float = 0) -> list[int]:
        batches.append(items)
        if is_away:
            raise EngineUnavailable("away")
        return items

    async with serving(run) as batcher:
        await outcomes(batcher, [1, 2, 3])
        is_away = False
        await outcomes(batcher, [1, 2, 3])
    assert batches == [[1, 2, 3], [1, 2, 3]]


async def test_one_batch_that_hung_does_not_make_the_pace() -> None:
    took_s = 0.002

    async def run(items: list[int], timeout_s: float = 0) -> list[int]:
        await asyncio.sleep(took_s)
        return items

    async with serving(run) as batcher:
        for _ in range(10):
            await batcher.submit(1)
        usual_s = batcher.pace_s
        took_s = 0.5
        await batcher.submit(1)
        assert 0 < batcher.pace_s < 2 * usual_s < 0.5


async def test_an_engine_that_comes_back_has_no_pace_yet() -> None:
    """Or callers were refused by what it took to come back."""
    is_away = False

    async def run(items: list[int], timeout_s: float = 0) -> list[int]:
        await asyncio.sleep(0.001)
        if is_away:
            raise EngineUnavailable("away")
        return items

    async with serving(run) as batcher:
        await batcher.submit(1)
        await batcher.submit(1)
        assert batcher.pace_s > 0
        is_away = True
        with pytest.raises(EngineUnavailable):
            await batcher.submit(1)
        is_away = False
        await batcher.submit(1)
        assert batcher.pace_s == 0


async def test_an_engine_that_fails_everything_is_not_asked_item_by_item() -> None:
    engine = Fragile()
    async with serving(engine.run) as batcher:
        found = await outcomes(batcher, [-1, -2, -3, -4, -5, -6])
        assert [type(outcome) for outcome in found] == [EngineFailed] * 6
        assert engine.batches[1:] == [[-1], [-2], [-3]]
        engine.batches.clear()
        await outcomes(batcher, [-1, 5])
    assert engine.batches[0] == [-1, 5]  # nobody was blamed


async def test_an_engine_that_is_away_fails_the_batch_and_is_not_asked_again() -> None:
    calls = 0

    async def away(items: list[int], timeout_s: float = 0) -> list[int]:
        nonlocal calls
        calls += 1
        raise EngineUnavailable("away")

    async with serving(away) as batcher:
        found = await outcomes(batcher, [1, 2])
    assert [type(outcome) for outcome in found] == [EngineUnavailable] * 2
    assert calls == 1


async def test_an_answer_of_the_wrong_length_is_an_error_and_not_a_hang() -> None:
    async def short(items: list[int], timeout_s: float = 0) -> list[int]:
        return items[:-1]

    async with serving(short) as batcher:
        with pytest.raises(ValueError, match="shorter"):
            await batcher.submit(1)


async def test_stopping_answers_everyone_who_waits() -> None:
    engine = Engine()
    batcher = Batcher(engine.run, BatchLimits(max_items=1), in_flight=1, digest=digest)
    serve = asyncio.create_task(batcher.serve())
    running, waiting = (asyncio.create_task(batcher.submit(item)) for item in (1, 2))
    await asyncio.sleep(0.01)
    assert len(batcher) == 1
    serve.cancel()
    results = await asyncio.gather(running, waiting, return_exceptions=True)
    assert [type(result) for result in results] == [EngineUnavailable, EngineUnavailable]


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


async def test_what_a_silent_engine_answers_late_does_not_make_the_pace() -> None:
    """Or callers were refused by what it took to wake up."""
    took_s = 0.002

    async def run(items: list[int], timeout_s: float) -> list[int]:
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.sleep(took_s)
        except TimeoutError:
            raise DeadlinePassed("no answer") from None
        return items

    def soon() -> float:
        return asyncio.get_running_loop().time() + 0.1

    async with serving(run) as batcher:
        await batcher.submit(1)
        await batcher.submit(1)
        usual_s = batcher.pace_s
        took_s = 10.0
        with pytest.raises(DeadlinePassed):
            await batcher.submit(1, deadline=soon())
        took_s = 0.05
        for _ in range(3):
            await batcher.submit(1, deadline=soon())
        assert batcher.pace_s == usual_s


async def test_an_engine_too_busy_to_be_in_time_keeps_its_pace() -> None:
    """What it answers to others while one gives up is its pace, and callers are refused by it."""
    took_s = 0.002

    async def run(items: list[int], timeout_s: float) -> list[int]:
        if items == [0]:
            await asyncio.sleep(timeout_s)
            raise DeadlinePassed("no answer")
        await asyncio.sleep(took_s)
        return items

    async with serving(run, in_flight=2) as batcher:
        for _ in range(3):
            await batcher.submit(1)
        took_s = 0.05
        late = asyncio.get_running_loop().time() + 0.1
        gives_up = asyncio.create_task(batcher.submit(0, deadline=late))
        await asyncio.sleep(0.01)
        for _ in range(3):
            await batcher.submit(1)
        with pytest.raises(DeadlinePassed):
            await gives_up
        assert batcher.pace_s >= 0.05
        took_s = 0.002
        await batcher.submit(1)
        assert batcher.pace_s < 0.05


async def test_a_batch_is_no_larger_than_its_most_urgent_item_has_time_for() -> None:
    """At the pace of late: 10 ms an item, so five of them in the 60 ms that the first has."""
    batches: list[int] = []

    async def run(items: list[int], timeout_s: float) -> list[int]:
        batches.append(len(items))
        await asyncio.sleep(0.01 * len(items))
        return items

    async with serving(run) as batcher:
        for _ in range(3):
            await submit_all(batcher, [0] * 4)
        batches.clear()
        now = asyncio.get_running_loop().time()
        urgent = asyncio.create_task(batcher.submit(1, deadline=now + 0.06))
        rest = asyncio.create_task(submit_all(batcher, [2] * 40, deadline=now + 60))
        await asyncio.gather(urgent, rest)
    assert 1 <= batches[0] <= 6
    assert sum(batches) == 41
    assert max(batches) > 20


async def test_what_could_not_end_in_time_is_not_begun_while_others_wait() -> None:
    begun: list[int] = []

    async def run(items: list[int], timeout_s: float) -> list[int]:
        begun.extend(items)
        await asyncio.sleep(0.05 * len(items))
        return items

    async with serving(run, max_items=1) as batcher:
        for _ in range(3):
            await batcher.submit(0)
        now = asyncio.get_running_loop().time()
        first = asyncio.create_task(batcher.submit(1, deadline=now + 60))
        await asyncio.sleep(0)
        late = asyncio.create_task(batcher.submit(2, deadline=now + 0.07))
        last = asyncio.create_task(batcher.submit(3, deadline=now + 60))
        with pytest.raises(DeadlinePassed):
            await late
        await asyncio.gather(first, last)
    assert 2 not in begun
