"""What an operator sees: health, reflection, limits, metrics, start and stop."""

from __future__ import annotations

import asyncio
import re
import socket
import urllib.request
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from diptych.client import AsyncClient
from diptych.errors import BadRepository, DiptychError, NotFound
from diptych.gateway.server import SERVICES, gateway
from tests.serving import SHAPES, faulty, local, served

SERVING = health_pb2.HealthCheckResponse.SERVING


async def test_health_is_told_for_the_server_and_for_the_service() -> None:
    async with gateway(local()) as running, grpc.aio.insecure_channel(running.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", *SERVICES):
            reply = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert reply.status == SERVING


async def test_health_says_not_serving_before_the_server_stops() -> None:
    async with faulty() as server:
        channel = grpc.aio.insecure_channel(server.address)
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service=SERVICES[0])
        )
        assert (await watch.read()).status == SERVING
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    await channel.close()


async def test_open_calls_finish_when_the_server_is_told_to_stop() -> None:
    async with faulty() as server:
        client = server.client()
        server.engine.gate.clear()
        held = asyncio.create_task(client.embed(["a"]))
        await asyncio.sleep(0.1)
        asyncio.get_running_loop().call_later(0.5, server.engine.gate.set)
    assert (await held).vectors.shape == (1, SHAPES.spec.embed_dim)
    await client.close()


async def test_a_call_that_outlasts_the_drain_is_ended_and_told_so() -> None:
    async with faulty(drain_s=0.2) as server:
        client = server.client()
        server.engine.gate.clear()
        held = asyncio.create_task(client.embed(["a"]))
        await asyncio.sleep(0.1)
        asyncio.get_running_loop().call_later(1, server.engine.gate.set)
    with pytest.raises(DiptychError):
        await held
    await client.close()


async def _services(address: str) -> list[str]:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        async for reply in stub.ServerReflectionInfo(iter([asked])):
            return [service.name for service in reply.list_services_response.service]
    return []


async def test_reflection_lists_our_services_unless_it_is_off() -> None:
    async with gateway(local()) as running:
        assert set(SERVICES) <= set(await _services(running.address))
    async with gateway(local(reflection=False)) as running:
        with pytest.raises(grpc.aio.AioRpcError, match="UNIMPLEMENTED"):
            await _services(running.address)


async def test_limits_are_stated_as_they_are_set() -> None:
    async with served(max_inputs=7, max_image_pixels=1000) as client:
        info = await client.models()
    assert (info.limits.inputs_per_request, info.limits.image_pixels) == (7, 1000)
    assert "JPEG" in info.limits.image_formats
    [model] = info.models
    assert model.space.fingerprint == SHAPES.spec.fingerprint
    assert re.match(r"(openvino|onnxruntime) \S+, CPU, \w+, \d+ threads", model.engine)


async def test_metrics_count_calls_and_time_stages() -> None:
    async with gateway(local(metrics_port=0)) as running, AsyncClient(running.address) as client:
        await client.embed(["a", "b"])
        with pytest.raises(DiptychError):
            await client.embed([])
        url = f"http://{running.metrics_address}/metrics"
        text = (await asyncio.to_thread(urllib.request.urlopen, url)).read().decode()
    method = 'grpc_method="Embed",grpc_service="diptych.v1.EmbeddingService",grpc_type="unary"'
    for line in (
        f"grpc_server_started_total{{{method}}} 2.0",
        'grpc_code="OK",' + method,
        'grpc_code="INVALID_ARGUMENT",' + method,
        'diptych_stage_duration_seconds_count{stage="engine"} 2.0',
        f'fingerprint="{SHAPES.spec.fingerprint}"',
    ):
        assert line in text


async def test_a_taken_port_is_said_plainly() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            async with gateway(local(port=port)):
                pytest.fail("served")


async def test_what_cannot_be_served_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no model 'dalle'"):
        async with gateway(local(model=("dalle",))):
            pytest.fail("served")
    with pytest.raises(BadRepository, match="holds no model"):
        async with gateway(local(repository=tmp_path)):
            pytest.fail("served")
