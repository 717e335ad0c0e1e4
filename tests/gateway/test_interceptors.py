"""What every call gets, where the gateway's own servicers cannot show it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from diptych.errors import Overloaded
from diptych.gateway.interceptors import OURS, Calls
from diptych.metrics import Metrics

METHOD = f"{OURS}Any/Call"


async def refuse_late(request: bytes, context: Any) -> bytes:
    """Raise when the caller is about to give up; `request` is how many milliseconds before."""
    await asyncio.sleep(max(0.0, context.time_remaining() - float(request) / 1000))
    raise Overloaded("full")


class Handlers(grpc.GenericRpcHandler):
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(refuse_late, request_deserializer=bytes)


@asynccontextmanager
async def calling(metrics: Metrics) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server(interceptors=[Calls(metrics)])
    server.add_generic_rpc_handlers([Handlers()])
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        await channel.channel_ready()
        yield channel
    await server.stop(None)


def ended(metrics: Metrics) -> dict[str, float]:
    """Calls by the status they are counted under."""
    found = metrics.handled.collect()
    samples = [sample for metric in found for sample in metric.samples]
    return {s.labels["grpc_code"]: s.value for s in samples if s.name.endswith("_total")}


async def test_callers_who_hang_up_as_they_are_refused_make_no_noise(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics, heard = Metrics(), Counter[str]()
    async with calling(metrics) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        for before in range(6):
            calls = (call(b"%d" % before, timeout=0.05 + n / 2000) for n in range(100))
            for answer in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(answer, grpc.aio.AioRpcError)
                heard[answer.code().name] += 1
    assert set(heard) <= {"RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
    assert heard["DEADLINE_EXCEEDED"] > 0
    assert set(ended(metrics)) <= {"RESOURCE_EXHAUSTED", "CANCELLED"}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
