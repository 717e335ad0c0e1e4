"""A real Triton that dies, hangs, or comes back, as the engine sees it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc

from diptych.canary import prove
from diptych.contract import Tower
from diptych.engines.base import EMBEDS, TOKENS
from diptych.engines.triton import TritonEngine
from diptych.engines.triton_install import Installed
from diptych.engines.triton_server import TritonServer, tritonserver
from diptych.errors import DeadlinePassed, DiptychError, EngineFailed, EngineUnavailable
from diptych.repository import ModelFiles
from tests.triton.test_same_vectors import texts

TEXT = EMBEDS[Tower.TEXT]


@asynccontextmanager
async def connected(
    served: Path, installed: Installed, files: ModelFiles, log: Path
) -> AsyncIterator[tuple[TritonEngine, TritonServer]]:
    async with tritonserver(served, installed, log=log) as server:
        engine = await TritonEngine.connect(server.address, files)
        try:
            yield engine, server
        finally:
            await engine.close()


async def test_a_killed_server_is_unavailable_at_once_and_found_again_soon(
    served: Path, installed: Installed, files: ModelFiles, tmp_path: Path
) -> None:
    async with tritonserver(served, installed, log=tmp_path / "log") as server:
        engine = await TritonEngine.connect(server.address, files)
        os.kill(server.pid, signal.SIGKILL)
        await server.broken()
        for _ in range(20):
            started = time.monotonic()
            with pytest.raises(EngineUnavailable):
                await engine.run(Tower.TEXT, texts(1), [TEXT], timeout_s=2)
            assert time.monotonic() - started < 1
    port = int(server.address.rpartition(":")[2])
    async with tritonserver(served, installed, log=tmp_path / "log", port=port):
        returned = time.monotonic()
        while True:
            try:
                await prove(engine, files.spec)
                break
            except EngineUnavailable:
                assert time.monotonic() - returned < 5
                await asyncio.sleep(0.1)
    await engine.close()


async def test_calls_in_flight_end_with_the_server(
    served: Path, installed: Installed, files: ModelFiles, tmp_path: Path
) -> None:
    async with connected(served, installed, files, tmp_path / "log") as (engine, server):
        calls = [
            asyncio.create_task(engine.run(Tower.TEXT, texts(64), [TEXT], timeout_s=2))
            for _ in range(50)
        ]
        await asyncio.sleep(0.005)
        os.kill(server.pid, signal.SIGKILL)
        started = time.monotonic()
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert time.monotonic() - started < 3
    assert {type(answer) for answer in answers} <= {dict, EngineUnavailable, DeadlinePassed}


async def test_a_dead_stub_is_an_engine_that_is_away(
    served: Path, installed: Installed, files: ModelFiles, tmp_path: Path
) -> None:
    async with connected(served, installed, files, tmp_path / "log") as (engine, server):
        for stub in server.stubs:
            os.kill(stub, signal.SIGKILL)
        started = time.monotonic()
        for _ in range(8):
            with pytest.raises((EngineUnavailable, DeadlinePassed)):
                await engine.run(Tower.TEXT, texts(1), [TEXT], timeout_s=2)
        # Triton takes a second to find out, each time; the breaker does not ask each time.
        assert time.monotonic() - started < 12


async def test_a_stopped_server_costs_callers_their_own_time_only(
    served: Path, installed: Installed, files: ModelFiles, tmp_path: Path
) -> None:
    async with connected(served, installed, files, tmp_path / "log") as (engine, server):
        os.killpg(server.pid, signal.SIGSTOP)
        started = time.monotonic()
        calls = (engine.run(Tower.TEXT, texts(1), [TEXT], timeout_s=0.5) for _ in range(20))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - started < 1.5
        assert {type(answer) for answer in answers} == {DeadlinePassed}
        assert not await engine.is_well()
        os.killpg(server.pid, signal.SIGCONT)
        await prove(engine, files.spec)


async def test_what_the_graph_refuses_fails_alone(engine: TritonEngine, files: ModelFiles) -> None:
    good = texts(1)
    bad = {TOKENS: np.ones((1, 2 * files.spec.text.context_length), np.int64)}
    calls = [engine.run(Tower.TEXT, bad if i == 7 else good, [TEXT]) for i in range(20)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    failed = [i for i, answer in enumerate(answers) if isinstance(answer, DiptychError)]
    assert failed == [7]
    assert isinstance(answers[7], EngineFailed)
    assert str(answers[7]) == "the text tower failed in Triton"


async def test_what_nobody_waits_for_is_not_computed(
    engine: TritonEngine, triton: TritonServer, files: ModelFiles
) -> None:
    """A call that is given up while it waits in Triton takes no time of the tower."""

    async def computing_s() -> float:
        async with grpc.aio.insecure_channel(triton.address) as channel:
            name = files.spec.folders[Tower.TEXT]
            request = pb.ModelStatisticsRequest(name=name)
            answer = await rpc.GRPCInferenceServiceStub(channel).ModelStatistics(request)
        return float(answer.model_stats[0].inference_stats.compute_infer.ns) / 1e9

    await engine.run(Tower.TEXT, texts(64), [TEXT])  # so that nothing is compiled later
    start = await computing_s()
    await engine.run(Tower.TEXT, texts(64), [TEXT])
    before = await computing_s()
    calls = (engine.run(Tower.TEXT, texts(64), [TEXT], timeout_s=0.1) for _ in range(200))
    waiting = asyncio.gather(*calls, return_exceptions=True)
    assert await engine.is_well()
    answers = await waiting
    assert DeadlinePassed in {type(answer) for answer in answers}
    await engine.run(Tower.TEXT, texts(1), [TEXT])  # behind all that still waits
    assert await computing_s() - before < 200 / 2 * (before - start)
