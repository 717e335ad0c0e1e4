"""Health follows the engine: through a real socket."""

from __future__ import annotations

import asyncio
import time

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from diptych.errors import EngineUnavailable
from tests.serving import SHAPES, Faulty, faulty

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def break_with_error(server: Faulty) -> None:
    server.engine.failure = EngineUnavailable("away")


def break_with_nonsense(server: Faulty) -> None:
    server.engine.answer = np.ones((1, SHAPES.spec.embed_dim), np.float32)


def break_with_surprise(server: Faulty) -> None:
    server.engine.failure = RuntimeError("unforeseen")


def break_with_silence(server: Faulty) -> None:
    server.engine.gate.clear()


def mend(server: Faulty) -> None:
    server.engine.failure = None
    server.engine.answer = None
    server.engine.gate.set()


@pytest.mark.parametrize(
    "break_", [break_with_error, break_with_nonsense, break_with_surprise, break_with_silence]
)
async def test_health_goes_with_the_canary_and_comes_back_with_it(break_: object) -> None:
    async with (
        faulty(canary_every_s=0.1) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)

        async def seconds_until(status: int) -> float:
            started = time.monotonic()
            async for reply in stub.Watch(health_pb2.HealthCheckRequest(service="")):
                if reply.status == status:
                    return time.monotonic() - started
            raise AssertionError("the watch ended")

        await seconds_until(SERVING)
        assert callable(break_)
        break_(server)
        assert await seconds_until(NOT_SERVING) < 2
        mend(server)
        assert await seconds_until(SERVING) < 5


async def test_an_engine_that_is_only_busy_is_not_unhealthy() -> None:
    async with faulty(canary_every_s=0.1) as server, server.client() as client:
        server.engine.well = True
        server.engine.gate.clear()
        await asyncio.sleep(2)
        stub = health_pb2_grpc.HealthStub(client._channel)
        reply = await stub.Check(health_pb2.HealthCheckRequest(service=""))
        assert reply.status == SERVING
        server.engine.gate.set()
        assert len((await client.embed(["a"])).results) == 1


async def test_a_canary_takes_a_small_share_of_its_engine_as_long_as_that_is_well() -> None:
    async with faulty(canary_every_s=0.05) as server:
        engine = server.engine
        engine.well = True
        engine.gate.clear()
        await asyncio.sleep(0.3)  # that this canary takes: a twenty-fifth of seven seconds
        engine.gate.set()
        await asyncio.sleep(0.3)
        asked = len(engine.batches)
        await asyncio.sleep(1)
        assert len(engine.batches) == asked
        engine.well = False
        await asyncio.sleep(0.5)
        assert len(engine.batches) > asked


async def test_a_batch_under_way_does_not_make_a_busy_server_unhealthy() -> None:
    async with faulty(canary_every_s=0.1) as server, server.client() as client:
        stub = health_pb2_grpc.HealthStub(client._channel)
        await asyncio.gather(*(client.embed(["a star"] * 100) for _ in range(10)))
        reply = await stub.Check(health_pb2.HealthCheckRequest(service=""))
        assert reply.status == SERVING
