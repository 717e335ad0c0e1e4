"""What is known of the time work takes, and what follows for work in a hurry."""

from __future__ import annotations

import asyncio

import pytest

from diptych.errors import DeadlinePassed, EngineUnavailable
from tests.batches import Steady, serving, submit_all


async def test_one_batch_that_hung_does_not_make_the_pace() -> None:
    took_s = 0.002

    async def run(items: list[int], timeout_s: float = 0) -> list[int]:
        await asyncio.sleep(took_s)
        return items

    async with serving(run) as batcher:
        for _ in range(10):
            await batcher.submit(1)
        usual_s = batcher.pace.item_s
        took_s = 0.5
        await batcher.submit(1)
        assert 0 < batcher.pace.item_s < 2 * usual_s < 0.5


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
        assert batcher.pace.item_s > 0
        is_away = True
        with pytest.raises(EngineUnavailable):
            await batcher.submit(1)
        is_away = False
        await batcher.submit(1)
        assert batcher.pace.item_s == 0


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
        usual_s = batcher.pace.item_s
        took_s = 10.0
        with pytest.raises(DeadlinePassed):
            await batcher.submit(1, deadline=soon())
        took_s = 0.05
        for _ in range(3):
            await batcher.submit(1, deadline=soon())
        assert batcher.pace.item_s == usual_s


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
        assert batcher.pace.item_s >= 0.05
        took_s = 0.002
        for _ in range(3):
            await batcher.submit(1)
        assert batcher.pace.item_s < 0.05


@pytest.mark.parametrize("call_items", [0.0, 3.0])
async def test_a_batch_is_no_larger_than_its_most_urgent_item_has_time_for(
    call_items: float,
) -> None:
    """Five items in 60 ms, though a call of three others is worth twelve: those behind can wait."""
    engine = Steady(call_items)
    async with engine.known() as batcher:
        now = asyncio.get_running_loop().time()
        deadline = now + 0.06 + 0.01 * call_items
        urgent = asyncio.create_task(batcher.submit(1, deadline=deadline))
        rest = asyncio.create_task(submit_all(batcher, [2] * 40, deadline=now + 60))
        await asyncio.gather(urgent, rest)
    assert 1 <= engine.batches[0] <= 6
    assert sum(engine.batches) == 41
    assert max(engine.batches) > 20


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


async def test_under_a_flood_every_call_is_worth_its_cost() -> None:
    """Each call saves what it can: at worst few at a time, while all others become too late."""
    engine = Steady(call_items=3.0)
    async with engine.known() as batcher:
        now = asyncio.get_running_loop().time()
        flood = [batcher.submit(1, deadline=now + 0.1 + 0.005 * n) for n in range(200)]
        outcomes = await asyncio.gather(*flood, return_exceptions=True)
    answered = sum(not isinstance(outcome, DeadlinePassed) for outcome in outcomes)
    assert answered == sum(engine.batches) > 60  # 88 would take all the time there is
    assert sum(items < batcher.pace.worth for items in engine.batches) <= 2  # the last ones


async def test_single_calls_teach_nothing_wrong_about_large_batches() -> None:
    """A GPU takes 20 ms for one and for sixty-four: nobody is refused for what is waiting there."""

    async def run(items: list[int], timeout_s: float) -> list[int]:
        await asyncio.sleep(0.02)
        return items

    async with serving(run, call_items=1000.0, max_items=64) as batcher:
        for _ in range(3):
            await batcher.submit(1)
        assert batcher.pace.expected_s(1) == pytest.approx(batcher.pace.expected_s(64), rel=0.1)
        now = asyncio.get_running_loop().time()
        await submit_all(batcher, [1] * 64, deadline=now + 0.5)
