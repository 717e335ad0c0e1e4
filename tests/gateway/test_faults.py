"""When there is no room, no time, or no sense in the engine's answer: through a real socket."""

from __future__ import annotations

import asyncio
import time

import grpc
import numpy as np
import pytest

from diptych.client import AsyncClient
from diptych.engines.base import Array
from diptych.errors import DeadlinePassed, EngineFailed, EngineUnavailable, Overloaded
from diptych.gateway.opening import open_engine
from diptych.gateway.server import gateway
from diptych.gateway.status import PUSHBACK_KEY
from diptych.testing import FaultyEngine
from tests.serving import SHAPES, Faulty, faulty, local

D, SIZE = SHAPES.spec.embed_dim, SHAPES.spec.image.size


async def test_a_full_server_refuses_at_once_and_says_when_to_try_again() -> None:
    async with faulty(max_waiting_inputs=2) as server, server.client() as client:
        server.engine.gate.clear()
        held = asyncio.create_task(client.embed(["a", "b"]))
        await asyncio.sleep(0.1)
        started = time.perf_counter()
        with pytest.raises(Overloaded, match="2 inputs are already being worked on") as caught:
            await client.embed(["c"])
        assert time.perf_counter() - started < 0.1
        cause = caught.value.__cause__
        assert isinstance(cause, grpc.aio.AioRpcError)
        assert dict(cause.trailing_metadata() or ())[PUSHBACK_KEY] == "250"
        server.engine.gate.set()
        assert (await held).vectors.shape == (2, D)


async def test_a_client_tries_again_until_there_is_room() -> None:
    async with faulty(max_waiting_inputs=1) as server, server.client(retries=True) as client:
        server.engine.gate.clear()
        held = asyncio.create_task(client.embed(["a"]))
        await asyncio.sleep(0.1)
        patient = asyncio.create_task(client.embed(["b"]))
        await asyncio.sleep(0.1)
        server.engine.gate.set()
        assert (await held).vectors.shape == (await patient).vectors.shape


async def test_work_whose_deadline_passed_is_dropped_and_not_computed() -> None:
    async with faulty() as server, server.client() as client:
        server.engine.gate.clear()
        held = asyncio.create_task(client.embed(["a"]))
        await asyncio.sleep(0.1)
        async with server.client(timeout_s=0.1) as hasty:
            with pytest.raises(DeadlinePassed):
                await hasty.embed(["b", "c"])
        server.engine.gate.set()
        await held
        await client.embed(["d"])
    assert [rows for _, rows in server.engine.batches] == [1, 1]


async def test_a_call_that_could_only_be_late_is_refused_at_once() -> None:
    """At the pace of late, with what is ahead of it; so that no work is begun in vain."""
    async with faulty(text_cache_bytes=0) as server:
        hurried, patient = server.client(timeout_s=0.8), server.client(timeout_s=60.0)
        async with hurried, patient:
            await _slow_down(server, patient)
            ahead = asyncio.create_task(patient.embed([f"ahead {number}" for number in range(120)]))
            await asyncio.sleep(0.05)
            began = time.monotonic()
            with pytest.raises(Overloaded, match="120 inputs are ahead"):
                await hurried.embed(["late"])
            assert time.monotonic() - began < 0.5
            last = asyncio.create_task(patient.embed(["last"]))
            await asyncio.sleep(0.05)
            server.engine.gate.set()
            await asyncio.gather(ahead, last)


async def test_who_has_gone_is_ahead_of_nobody() -> None:
    async with faulty(text_cache_bytes=0) as server:
        hurried, patient = server.client(timeout_s=0.8), server.client(timeout_s=60.0)
        async with hurried, patient:
            await _slow_down(server, patient)
            for wait_s in (0.0, 0.001, 0.05):  # before anything is begun, or after
                ahead = asyncio.create_task(patient.embed([f"gone {i}" for i in range(120)]))
                await asyncio.sleep(wait_s)
                ahead.cancel()
                await asyncio.sleep(0.1)
            server.engine.gate.set()
            assert (await hurried.embed(["in time"])).results


async def _slow_down(server: Faulty, client: AsyncClient) -> None:
    """Let it learn a pace of 0.4 s a text; afterwards it answers nobody."""
    for number in range(3):
        server.engine.gate.clear()
        slow = asyncio.create_task(client.embed([f"slow {number}"]))
        await asyncio.sleep(0.4)
        server.engine.gate.set()
        await slow
    server.engine.gate.clear()


async def test_a_cancelled_call_is_dropped_and_not_computed() -> None:
    async with faulty() as server, server.client() as client:
        server.engine.gate.clear()
        held = asyncio.create_task(client.embed(["a"]))
        await asyncio.sleep(0.1)
        gone = asyncio.create_task(client.embed(["b", "c"]))
        await asyncio.sleep(0.1)
        gone.cancel()
        await asyncio.sleep(0.1)
        server.engine.gate.set()
        await held
        await client.embed(["d"])
    assert [rows for _, rows in server.engine.batches] == [1, 1]


@pytest.mark.parametrize(
    "nonsense",
    [
        np.full((1, D), np.nan, np.float32),
        np.zeros((1, D), np.float32),
        np.ones((1, D - 1), np.float32),
        np.ones((2, D), np.float32),
        np.ones((1, D), np.float64),
        np.ones(0, np.float32),
    ],
    ids=["NaN", "zeros", "too few columns", "too many rows", "float64", "nothing"],
)
async def test_nonsense_from_the_engine_is_never_a_vector(nonsense: Array) -> None:
    async with faulty() as server, server.client() as client:
        server.engine.answer = nonsense
        picture = np.zeros((SIZE, SIZE, 3), np.uint8)
        [result] = (await client.embed([picture])).results
    assert isinstance(result, EngineFailed)


async def test_an_engine_that_is_away_is_unavailable() -> None:
    async with faulty() as server, server.client() as client:
        server.engine.failure = EngineUnavailable("the engine is away")
        with pytest.raises(EngineUnavailable, match="the engine is away"):
            await client.embed(["a"])


async def test_the_unforeseen_is_internal_and_tells_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with faulty() as server, server.client() as client:
        server.engine.failure = RuntimeError("secret detail")
        with pytest.raises(EngineFailed) as caught:
            await client.embed(["a"])
    message = str(caught.value)
    assert message.startswith("internal error ")
    assert "secret" not in message
    assert message.split()[-1] in caplog.text  # the id leads to the log
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text  # an error's words may quote what a caller sent


async def test_an_engine_that_proves_wrong_is_never_served() -> None:
    async def wrong(*_: object) -> FaultyEngine:
        engine = FaultyEngine(await open_engine(SHAPES, local(), 1), SHAPES.spec)
        engine.answer = np.ones((1, D), np.float32)
        return engine

    with pytest.raises(EngineFailed, match="canary has cosine"):
        async with gateway(local(), wrong):
            pytest.fail("served")


async def test_one_callers_fault_leaves_the_server_well() -> None:
    async with faulty() as server, server.client() as client:
        server.engine.failure = EngineFailed("no")
        assert isinstance((await client.embed(["a"])).results[0], EngineFailed)
        server.engine.failure = None
        assert (await client.embed(["a"])).vectors.shape == (1, D)
