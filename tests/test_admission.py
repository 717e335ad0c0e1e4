from __future__ import annotations

import asyncio

import pytest

from diptych.admission import Admission
from diptych.contract import Priority
from diptych.errors import Overloaded

NOW, LATER = Priority.INTERACTIVE, Priority.BULK


async def test_past_the_bound_callers_are_refused_at_once() -> None:
    admission = Admission(max_inputs=10, max_bytes=1000)
    with admission.enter(8, 100, NOW):
        with pytest.raises(Overloaded, match="8 inputs are already being worked on"):
            admission.enter(3, 100, NOW).__enter__()
        with pytest.raises(Overloaded):
            admission.enter(1, 901, NOW).__enter__()
        with admission.enter(2, 900, NOW):
            assert (admission.inputs, admission.bytes) == (10, 1000)
    assert (admission.inputs, admission.bytes) == (0, 0)


async def test_bulk_work_leaves_half_for_interactive_work() -> None:
    admission = Admission(max_inputs=10, max_bytes=1000)
    with admission.enter(5, 1, LATER), pytest.raises(Overloaded):
        admission.enter(1, 1, LATER).__enter__()
    with admission.enter(5, 1, LATER), admission.enter(5, 1, NOW):
        assert admission.inputs == 10


async def test_an_empty_server_takes_any_one_request() -> None:
    with Admission(max_inputs=1, max_bytes=1).enter(50, 50, LATER):
        pass


async def test_a_stream_waits_for_room_where_a_call_would_be_refused() -> None:
    admission = Admission(max_inputs=4, max_bytes=1000)
    order: list[str] = []

    async def wait() -> None:
        async with admission.wait(1, 1, LATER):
            order.append("in")

    with admission.enter(4, 1, NOW):
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0.01)
        order.append("leaving")
    await waiting
    assert order == ["leaving", "in"]


async def test_leaving_is_certain_whatever_happens_inside() -> None:
    admission = Admission(max_inputs=4, max_bytes=1000)
    with pytest.raises(ZeroDivisionError), admission.enter(4, 1, NOW):
        raise ZeroDivisionError
    assert admission.inputs == 0
