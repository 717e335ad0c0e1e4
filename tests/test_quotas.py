from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from diptych import quotas
from diptych.admission import Admission
from diptych.contract import Priority
from diptych.errors import Overloaded, Unidentified
from diptych.quotas import OF_CALL, Quota


@dataclass
class Clock:
    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time that stands still until it is moved."""
    found = Clock()
    monkeypatch.setattr(quotas, "time", found)
    return found


def test_inputs_at_once_are_bounded_but_a_lone_request_is_always_let_in() -> None:
    quota = Quota(inputs=4)
    quota.begin(10)
    with pytest.raises(Overloaded, match="10 inputs of this caller") as refused:
        quota.begin(1)
    assert (refused.value.bound, quota.inside) == ("over_quota", 10)
    quota.end(10)
    quota.begin(3)
    quota.begin(1)
    with pytest.raises(Overloaded):
        quota.begin(1)


def test_the_pace_holds_on_average_whatever_the_size_of_requests(clock: Clock) -> None:
    quota, sent = Quota(inputs_per_s=100), 0
    for _ in range(1000):  # 10 s in steps of 10 ms
        clock.now += 0.01
        with suppress(Overloaded):
            quota.begin(64)
            sent += 64
            quota.end(64)
    assert 1000 <= sent <= 1000 + 100 + 64  # the first second's worth, and one request


def test_who_waits_as_long_as_told_is_let_in(clock: Clock) -> None:
    quota = Quota(inputs_per_s=2)
    quota.begin(10)
    with pytest.raises(Overloaded, match="2 inputs a second") as refused:
        quota.begin(1)
    assert refused.value.retry_after_s == pytest.approx(4.5)  # 8 owed, and one to spend
    clock.now += 4.5
    quota.begin(1)


async def test_streams_are_slowed_to_the_pace_and_not_refused() -> None:
    quota = Quota(inputs_per_s=100)
    quota.begin(100)  # the bucket is empty
    started = time.monotonic()
    await asyncio.gather(*(quota.wait(1) for _ in range(20)))
    assert 0.18 <= time.monotonic() - started < 0.6


async def test_a_stream_that_ends_owes_nothing_for_what_it_never_sent(clock: Clock) -> None:
    quota = Quota(inputs_per_s=10)
    quota.begin(10)
    waiting = asyncio.create_task(quota.wait(1000))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    clock.now += 0.1
    quota.begin(1)


async def test_a_stream_waits_for_its_callers_other_inputs() -> None:
    quota = Quota(inputs=2)
    quota.begin(2)
    waiting = asyncio.create_task(quota.wait(1))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    quota.end(2)
    await waiting
    assert quota.inside == 1


def test_limits_change_while_inputs_are_inside(clock: Clock) -> None:
    quota = Quota()
    quota.begin(500)
    quota.limit(10, 5)
    with pytest.raises(Overloaded):
        quota.begin(1)
    quota.end(500)
    quota.begin(1)


@dataclass
class Caller:
    """What the gateway's admission asks of whoever is calling."""

    quota: Quota = field(default_factory=lambda: Quota(inputs=2))
    name: str = "search"
    priority: Priority = Priority.INTERACTIVE
    is_known: bool = True

    def check(self) -> None:
        if not self.is_known:
            raise Unidentified("gone")


@pytest.fixture
def caller() -> Iterator[Caller]:
    found = Caller()
    token = OF_CALL.set(found)
    yield found
    OF_CALL.reset(token)


def test_a_callers_quota_is_asked_wherever_inputs_enter(caller: Caller) -> None:
    admission = Admission(max_inputs=100, max_bytes=100)
    with admission.enter(2, 1, Priority.INTERACTIVE):
        assert (caller.quota.inside, admission.inputs) == (2, 2)
        with pytest.raises(Overloaded, match="of this caller"):
            admission.enter(1, 1, Priority.INTERACTIVE).__enter__()
    assert (caller.quota.inside, admission.inputs) == (0, 0)


async def test_a_stream_ends_once_its_caller_counts_no_longer(caller: Caller) -> None:
    OF_CALL.set(caller)  # a fixture's own context is not the test's task
    admission = Admission(max_inputs=100, max_bytes=100)
    async with admission.wait(1, 1, Priority.BULK):
        assert caller.quota.inside == 1
    caller.is_known = False
    with pytest.raises(Unidentified):
        await admission.wait(1, 1, Priority.BULK).__aenter__()
    assert (caller.quota.inside, admission.inputs) == (0, 0)
