from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from diptych.cache import Cache
from diptych.errors import DeadlinePassed, Overloaded


class Kitchen:
    """Makes values when let, and counts."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.open = asyncio.Event()
        self.open.set()

    def order(self, value: str) -> Callable[[], Awaitable[str]]:
        async def make() -> str:
            self.made.append(value)
            await self.open.wait()
            return value

        return make


async def test_a_value_is_made_once_and_kept() -> None:
    cache, kitchen = Cache(100, len), Kitchen()
    assert await cache.get("a", 1, kitchen.order("aaa")) == "aaa"
    assert await cache.get("a", 2, kitchen.order("bbb")) == "aaa"
    assert cache.find("a") == "aaa"
    assert kitchen.made == ["aaa"]


async def test_a_thundering_herd_computes_once() -> None:
    cache, kitchen = Cache(0, len), Kitchen()
    kitchen.open.clear()
    herd = [asyncio.create_task(cache.get("a", 1, kitchen.order("x"))) for _ in range(100)]
    await asyncio.sleep(0.01)
    kitchen.open.set()
    assert set(await asyncio.gather(*herd)) == {"x"}
    assert kitchen.made == ["x"]


async def test_lanes_do_not_wait_for_each_other() -> None:
    cache, kitchen = Cache(100, len), Kitchen()
    kitchen.open.clear()
    slow = asyncio.create_task(cache.get("a", "bulk", kitchen.order("slow")))
    await asyncio.sleep(0.01)
    assert await cache.get("a", "interactive", Kitchen().order("fast")) == "fast"
    kitchen.open.set()
    assert await slow == "slow"
    assert cache.find("a") == "fast"
    assert cache.bytes == 4


async def test_the_least_recently_used_goes_first() -> None:
    cache, kitchen = Cache(9, len), Kitchen()
    for key in "abc":
        await cache.get(key, 1, kitchen.order(key * 3))
    cache.find("a")
    await cache.get("d", 1, kitchen.order("ddd"))
    assert [key for key in "abcd" if cache.find(key)] == ["a", "c", "d"]
    assert cache.bytes == 9
    await cache.get("e", 1, kitchen.order("e" * 10))
    assert cache.find("e") is None  # larger than all there is room for


async def test_an_error_reaches_everyone_who_waits_and_is_not_kept() -> None:
    cache: Cache[str] = Cache(100, len)

    async def fail() -> str:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    found = await asyncio.gather(
        cache.get("a", 1, fail), cache.get("a", 1, fail), return_exceptions=True
    )
    assert [type(outcome) for outcome in found] == [ZeroDivisionError] * 2
    assert await cache.get("a", 1, Kitchen().order("well")) == "well"


async def test_a_flight_goes_on_while_anyone_waits_and_ends_with_the_last() -> None:
    cache, kitchen = Cache(100, len), Kitchen()
    kitchen.open.clear()
    first, second = (asyncio.create_task(cache.get("a", 1, kitchen.order("x"))) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.sleep(0.01)
    assert not second.done()
    second.cancel()
    await asyncio.sleep(0.01)
    kitchen.open.set()
    assert await cache.get("a", 1, kitchen.order("y")) == "y"
    assert kitchen.made == ["x", "y"]


async def test_a_beginners_deadline_is_not_the_others() -> None:
    cache, kitchen = Cache(100, len), Kitchen()

    async def late() -> str:
        await asyncio.sleep(0.02)
        raise DeadlinePassed

    hasty = asyncio.create_task(cache.get("a", 1, late))
    await asyncio.sleep(0.01)
    patient = asyncio.create_task(cache.get("a", 1, kitchen.order("x")))
    with pytest.raises(DeadlinePassed):
        await hasty
    assert await patient == "x"


async def test_who_comes_as_a_flight_ends_late_begins_his_own() -> None:
    cache, kitchen = Cache(100, len), Kitchen()
    end = asyncio.get_running_loop().create_future()

    async def late() -> str:
        await end
        raise DeadlinePassed

    hasty = asyncio.create_task(cache.get("a", 1, late))
    await asyncio.sleep(0.01)
    end.set_result(None)
    # Runs after `late` has raised, and before anybody has been told.
    patient = asyncio.create_task(cache.get("a", 1, kitchen.order("x")))
    with pytest.raises(DeadlinePassed):
        await hasty
    assert await patient == "x"


async def test_who_waited_for_another_and_then_finds_no_room_ran_out_of_time() -> None:
    cache: Cache[str] = Cache(100, len)

    async def late() -> str:
        await asyncio.sleep(0.02)
        raise DeadlinePassed

    async def refused() -> str:
        raise Overloaded("full")

    hasty = asyncio.create_task(cache.get("a", 1, late))
    await asyncio.sleep(0.01)
    with pytest.raises(DeadlinePassed, match="too little time was left"):
        await cache.get("a", 1, refused)
    with pytest.raises(DeadlinePassed):
        await hasty
    with pytest.raises(Overloaded):
        await cache.get("a", 1, refused)
