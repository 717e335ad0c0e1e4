"""When a batch fails, or the engine dies under it."""

from __future__ import annotations

import asyncio

import pytest

from diptych.batching import Batcher
from diptych.errors import EngineFailed, EngineUnavailable
from tests.batches import Engine, digest, serving


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
    batcher = Batcher(engine.run, max_items=1, in_flight=1, digest=digest)
    serve = asyncio.create_task(batcher.serve())
    running, waiting = (asyncio.create_task(batcher.submit(item)) for item in (1, 2))
    await asyncio.sleep(0.01)
    assert len(batcher) == 1
    serve.cancel()
    results = await asyncio.gather(running, waiting, return_exceptions=True)
    assert [type(result) for result in results] == [EngineUnavailable, EngineUnavailable]
