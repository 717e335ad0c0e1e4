"""A far end that is gone is left alone, and found again by one call."""

from __future__ import annotations

import pytest

from diptych.engines.breaker import Breaker
from diptych.errors import DeadlinePassed, EngineFailed, EngineUnavailable, Overloaded


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def fail(breaker: Breaker, error: Exception, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(type(error)), breaker.watched():
            raise error


def refused(breaker: Breaker) -> bool:
    try:
        with breaker.watched():
            return False
    except EngineUnavailable:
        return True


AWAY = EngineUnavailable("away")


def test_it_opens_after_failures_in_a_row_only() -> None:
    breaker = Breaker(failures=3)
    fail(breaker, AWAY, 2)
    assert not refused(breaker)
    fail(breaker, AWAY, 2)
    assert not refused(breaker)
    fail(breaker, AWAY, 3)
    assert refused(breaker)


@pytest.mark.parametrize("answer", [EngineFailed("no"), Overloaded("full")])
def test_an_error_for_an_answer_shows_that_somebody_is_there(answer: Exception) -> None:
    breaker = Breaker(failures=3)
    fail(breaker, AWAY, 2)
    fail(breaker, answer)
    fail(breaker, AWAY, 2)
    assert not refused(breaker)


def test_a_caller_who_ran_out_of_time_shows_nothing() -> None:
    breaker = Breaker(failures=3)
    fail(breaker, DeadlinePassed("late"), 10)
    assert not refused(breaker)
    fail(breaker, AWAY, 2)
    fail(breaker, DeadlinePassed("late"))
    fail(breaker, AWAY)
    assert refused(breaker)


def test_one_call_tries_after_a_while_and_closes_it() -> None:
    clock = Clock()
    breaker = Breaker(failures=1, open_s=1.0, clock=clock)
    fail(breaker, AWAY)
    clock.now = 0.9
    assert refused(breaker)
    clock.now = 1.1
    with breaker.watched():
        assert refused(breaker)  # one at a time
    assert not refused(breaker)


@pytest.mark.parametrize("failure", [AWAY, DeadlinePassed("it hangs")])
def test_a_failed_try_waits_for_the_next(failure: Exception) -> None:
    clock = Clock()
    breaker = Breaker(failures=1, open_s=1.0, clock=clock)
    fail(breaker, AWAY)
    clock.now = 1.1
    fail(breaker, failure)
    assert refused(breaker)
    clock.now = 2.2
    assert not refused(breaker)


def test_a_call_is_told_whether_somebody_was_there_the_last_time() -> None:
    breaker = Breaker()
    with breaker.watched() as was_well:
        assert was_well
    fail(breaker, AWAY)
    with breaker.watched() as was_well:
        assert not was_well
    with breaker.watched() as was_well:
        assert was_well


def test_opening_and_closing_are_told_once_each() -> None:
    told: list[bool] = []
    clock = Clock()
    breaker = Breaker(failures=3, clock=clock, told=told.append)
    fail(breaker, AWAY, 2)
    assert told == []
    fail(breaker, AWAY)
    clock.now = 5.0
    fail(breaker, AWAY)  # the one that tries
    assert told == [True]
    clock.now = 10.0
    with breaker.watched():
        pass
    with breaker.watched():
        pass
    assert told == [True, False]
