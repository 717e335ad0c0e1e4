"""Health on a port of its own, as Kubernetes' probes ask for it."""

from __future__ import annotations

import asyncio
import socket

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from diptych.client import AsyncClient
from diptych.engines.base import Engine
from diptych.errors import DiptychError, EngineUnavailable
from diptych.gateway.opening import open_engine
from diptych.gateway.probing import ALIVE
from diptych.gateway.server import SERVICES, gateway
from diptych.metrics import Metrics
from diptych.repository import ModelFiles
from diptych.settings import Settings
from diptych.testing import FaultyEngine
from tests.serving import local

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def test_it_follows_the_canary_and_alive_follows_the_process() -> None:
    engines: list[FaultyEngine] = []

    async def engine_for(
        files: ModelFiles, settings: Settings, wait_s: float, metrics: Metrics
    ) -> Engine:
        engine = await open_engine(files, settings, wait_s, metrics)
        engines.append(FaultyEngine(engine, files.spec, canary_every_s=0.1))
        return engines[0]

    async with gateway(local(health_port=0), engine_for) as running:
        assert running.health_address is not None
        async with grpc.aio.insecure_channel(running.health_address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)

            async def says(service: str) -> int:
                request = health_pb2.HealthCheckRequest(service=service)
                status: int = (await stub.Check(request, timeout=5)).status
                return status

            assert {await says(name) for name in ("", *SERVICES, ALIVE)} == {SERVING}
            engines[0].failure = EngineUnavailable("away")
            async with asyncio.timeout(10):
                async for reply in stub.Watch(health_pb2.HealthCheckRequest(service="")):
                    if reply.status == NOT_SERVING:
                        break
            assert {await says(name) for name in ("", *SERVICES)} == {NOT_SERVING}
            assert await says(ALIVE) == SERVING


async def test_nothing_but_health_is_there() -> None:
    async with gateway(local(health_port=0)) as running:
        assert running.health_address is not None
        async with AsyncClient(running.health_address, retries=False) as client:
            with pytest.raises(DiptychError, match="Method not found"):
                await client.embed(["a star"])


async def test_a_taken_port_stops_the_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            async with gateway(local(health_port=port)):
                pass
