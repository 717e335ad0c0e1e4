"""Spans as a real receiver gets them: whose child each is, what it took, which batch it was in."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from diptych.client import AsyncClient
from diptych.engines.triton import TritonEngine
from diptych.errors import DiptychError, EngineUnavailable
from diptych.gateway.opening import open_engine
from diptych.gateway.server import gateway
from diptych.gateway.telemetry import is_traced
from diptych.metrics import Metrics
from diptych.repository import ModelFiles
from diptych.settings import Settings
from diptych.v1 import embedding_pb2 as pb
from diptych.v1 import embedding_pb2_grpc as rpc
from tests.gateway.otlp import Receiver, facts, receiving
from tests.serving import SHAPES, faulty, local
from tests.triton.far_end import FarEnd

PICTURES = Path(__file__).parents[1] / "pictures"
POLICIES = PICTURES.parents[1] / "deploy/examples/policies"
RED, BLUE = ((PICTURES / name).read_bytes() for name in ("red_circle.png", "blue_square.jpg"))

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLED_BY = (("traceparent", f"00-{TRACE}-{PARENT}-01"), ("x-request-id", "order-66"))
EMBED = "diptych.v1.EmbeddingService/Embed"

SERVER = 2  # kinds and statuses of the protocol
ERROR = 2


@asynccontextmanager
async def traced(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receiver]:
    """Gateways that start within send their spans here, before they end."""
    async with receiving() as (receiver, address):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        yield receiver


async def test_a_call_and_its_stages_are_in_the_trace_of_its_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = pb.ScoreRequest(
        queries=[pb.Input(image=RED)], candidates=[pb.Input(text=t) for t in ("red", "blue")]
    )
    async with (
        traced(monkeypatch) as receiver,
        gateway(local()) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        await rpc.EmbeddingServiceStub(channel).Score(request, metadata=CALLED_BY)
    call = receiver.one("diptych.v1.EmbeddingService/Score")
    assert (call.trace_id.hex(), call.parent_span_id.hex()) == (TRACE, PARENT)
    assert call.kind == SERVER
    assert receiver.services == {"diptych"}
    told = facts(call)
    assert (told["rpc.system"], told["rpc.method"]) == ("grpc", "Score")
    assert (told["rpc.grpc.status_code"], told["diptych.inputs"]) == (0, 3)
    assert (told["diptych.request_id"], told["diptych.model"]) == ("order-66", "shapes")
    stages = [s for s in receiver.spans if s.parent_span_id == call.span_id and s.name != "batch"]
    assert sorted({stage.name for stage in stages}) == [
        *("decode", "engine", "queue"),
        *("score", "tokenize"),
    ]
    for stage in stages:
        assert stage.trace_id == call.trace_id
        assert call.start_time_unix_nano <= stage.start_time_unix_nano
        assert stage.start_time_unix_nano <= stage.end_time_unix_nano <= call.end_time_unix_nano


async def test_a_batch_is_linked_with_every_call_that_has_an_input_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with traced(monkeypatch) as receiver, faulty() as server, server.client() as client:
        server.engine.gate.clear()
        first = asyncio.create_task(client.embed([RED]))  # keeps the engine busy
        await asyncio.sleep(0.2)
        others = [asyncio.create_task(client.embed([BLUE + b"%d" % n])) for n in range(3)]
        await asyncio.sleep(0.2)
        server.engine.gate.set()
        await asyncio.gather(first, *others)
    calls = {call.span_id: call for call in receiver.named(EMBED)}
    batches = receiver.named("batch")
    together = next(batch for batch in batches if facts(batch)["diptych.inputs"] == 3)
    linked = {link.span_id for link in together.links}
    assert len(linked) == 3
    assert linked < set(calls)
    assert together.parent_span_id in linked
    of_engine = [stage for stage in receiver.named("engine") if stage.parent_span_id in linked]
    assert [stage.links[0].span_id for stage in of_engine] == [together.span_id] * 3


async def test_hidden_states_and_verdicts_have_their_stages_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with (
        traced(monkeypatch) as receiver,
        gateway(local(policies=POLICIES)) as running,
        AsyncClient(running.address) as client,
    ):
        await client.condition("sd15", "a red circle")
        await client.moderate(["a red circle"], "shapes")
    stages = {"Condition": {"queue", "engine"}, "Moderate": {"tokenize", "queue", "engine"}}
    stages["Moderate"].add("score")
    for method, expected in stages.items():
        [call] = [c for c in receiver.spans if c.name.endswith(f"Service/{method}")]
        within = {s.name for s in receiver.spans if s.parent_span_id == call.span_id}
        assert within == {*expected, "batch"}


async def test_triton_is_told_the_trace_and_a_failed_batch_shows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[dict[str, str]] = []
    async with traced(monkeypatch) as receiver, FarEnd(SHAPES).serving() as far_end:

        async def listening(request: Any, context: Any) -> Any:
            heard.append(dict(context.invocation_metadata()))
            return await far_end.ones(request, context)

        async def engine_for(
            files: ModelFiles, settings: Settings, wait_s: float, metrics: Metrics
        ) -> Any:
            real = await open_engine(files, settings, wait_s, metrics)
            engine = await TritonEngine.connect(far_end.address, files)
            return _Divided(real, engine)

        async with gateway(local(), engine_for) as running, AsyncClient(running.address) as client:
            far_end.answer = listening
            await client.embed(["a red circle"])
            far_end.answer = far_end.says(grpc.StatusCode.UNAVAILABLE, "gone")
            with pytest.raises(EngineUnavailable):
                await client.embed(["a blue circle"])
    good, bad = sorted(receiver.named("batch"), key=lambda span: span.start_time_unix_nano)[:2]
    version, trace, parent, flags = heard[0]["traceparent"].split("-")
    assert (version, trace, parent) == ("00", good.trace_id.hex(), good.span_id.hex())
    assert int(flags, 16) & 1  # sampled
    assert (bad.status.code, bad.status.message) == (ERROR, "EngineUnavailable")
    failed = next(c for c in receiver.named(EMBED) if c.span_id == bad.parent_span_id)
    assert (failed.status.code, failed.status.message) == (ERROR, "UNAVAILABLE")
    assert facts(failed)["rpc.grpc.status_code"] == grpc.StatusCode.UNAVAILABLE.value[0]


async def test_a_callers_mistake_is_no_error_of_ours_but_has_its_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with (
        traced(monkeypatch) as receiver,
        gateway(local()) as running,
        AsyncClient(running.address) as client,
    ):
        with pytest.raises(DiptychError):
            await client.embed([])
    call = receiver.one(EMBED)
    assert call.status.code != ERROR
    assert facts(call)["rpc.grpc.status_code"] == grpc.StatusCode.INVALID_ARGUMENT.value[0]


async def test_what_the_caller_does_not_sample_is_not_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with (
        traced(monkeypatch) as receiver,
        gateway(local()) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        unsampled = (("traceparent", f"00-{TRACE}-{PARENT}-00"),)
        request = pb.EmbedRequest(inputs=[pb.Input(text="a")])
        await rpc.EmbeddingServiceStub(channel).Embed(request, metadata=unsampled)
    assert receiver.spans == []


async def test_another_protocol_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    with pytest.raises(ValueError, match="OTEL_EXPORTER_OTLP_PROTOCOL is 'http/protobuf'"):
        async with gateway(local()):
            pytest.fail("served")


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4317", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_calls_are_traced_where_there_is_an_address(env: dict[str, str], wanted: bool) -> None:
    assert is_traced(env) is wanted


def test_opentelemetry_is_not_even_loaded_where_nobody_traces() -> None:
    asked = (
        "import sys, diptych.cli; sys.exit(any(m.startswith('opentelemetry') for m in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", asked], check=True)


class _Divided:
    """An engine whose canary is answered by one engine, and all else by another."""

    def __init__(self, proving: Any, running: Any) -> None:
        self._proving = proving
        self._running = running

    def __getattr__(self, name: str) -> Any:
        return getattr(self._proving, name)

    async def run(self, tower: Any, inputs: Any, outputs: Any, *, timeout_s: Any = None) -> Any:
        engine = self._proving if timeout_s is None else self._running
        return await engine.run(tower, inputs, outputs, timeout_s=timeout_s)

    async def close(self) -> None:
        await self._proving.close()
        await self._running.close()
