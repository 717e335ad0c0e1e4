"""How long work takes, by the calls of late, and what can still be in time."""

from __future__ import annotations

import math

import pytest

from diptych.pace import Pace


def known(*, call_items: float, max_items: int = 64) -> Pace:
    """One second an item, and `call_items` more a call."""
    pace = Pace(in_flight=1, max_items=max_items, call_items=call_items)
    for second in (0.0, 100.0, 200.0):
        pace.ran(second, second + 10 + call_items, 10)
    assert pace.item_s == 1.0
    return pace


def test_a_call_costs_its_items_and_itself() -> None:
    pace = known(call_items=2, max_items=4)
    assert pace.expected_s(3) == 5.0
    assert pace.expected_s(5) == 9.0  # two calls


def test_most_of_the_latest_calls_make_the_pace_fast_or_slow() -> None:
    pace = Pace(in_flight=1, max_items=1, call_items=0)
    seen, clock = [], 0.0
    for took_s in (1, 9, 1, 9, 9, 1, 1):
        pace.ran(clock, clock + took_s, 1)
        clock += took_s
        seen.append(pace.item_s)
    assert seen == [0, 1, 1, 9, 9, 9, 1]


@pytest.mark.parametrize(("ahead", "answered_s"), [(0, 0), (3, 8), (8, 18), (20, 30)])
def test_who_waits_shares_a_call_with_those_behind(ahead: int, answered_s: float) -> None:
    pace = known(call_items=2)
    assert pace.worth == 8
    assert pace.answered_s(ahead) == pytest.approx(answered_s)


def test_a_call_is_never_worth_more_than_it_may_have() -> None:
    assert Pace(in_flight=1, max_items=8, call_items=1000).worth == 8


def test_all_go_together_who_have_the_time() -> None:
    assert known(call_items=2).in_time([100.0] * 10, now=0) == (0, 10)


def test_a_call_is_over_before_its_first_deadline() -> None:
    deadlines = [20.0, *[100.0] * 20]
    assert known(call_items=2).in_time(deadlines, now=0) == (0, 15)  # 17 s, and some slack


def test_who_is_last_has_a_call_however_small() -> None:
    assert known(call_items=2).in_time([4.0], now=0) == (0, 1)


def test_who_would_make_all_others_late_goes_without() -> None:
    """Calls of eight take 10 s; in time for the first three, no other would be in any."""
    deadlines = [5.0, 9.0, 11.0, *[12.0] * 20]
    assert known(call_items=2).in_time(deadlines, now=0) == (3, 11)


@pytest.mark.parametrize("own", [60.0, math.inf])
def test_who_has_time_never_goes_without_for_others_in_a_hurry(own: float) -> None:
    """Bulk work may be first, or in more of a hurry than the interactive work before it."""
    deadlines = [own] * 3 + [5.0] * 20
    assert known(call_items=2).in_time(deadlines, now=0) == (0, 3)


def test_who_is_in_a_hurry_among_others_that_are_not_goes_first() -> None:
    deadlines = [5.0, *[60.0] * 20]
    assert known(call_items=2).in_time(deadlines, now=0) == (0, 2)


def test_nothing_is_too_late_while_the_pace_is_unknown() -> None:
    pace = Pace(in_flight=1, max_items=64, call_items=2)
    assert pace.in_time([1.0, 2.0], now=0) == (0, 2)
    assert pace.answered_s(1000) == 0


def test_nobody_waits_for_less_than_nothing() -> None:
    assert known(call_items=2).in_time([], now=0) == (0, 0)
