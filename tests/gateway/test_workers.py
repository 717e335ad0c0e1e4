"""Several processes on one port, as `diptych serve --workers` starts them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from diptych.client import AsyncClient
from diptych.errors import EngineUnavailable
from diptych.gateway.workers import run_workers, shares
from diptych.settings import Settings, cores
from tests.serving import REPOSITORY, local


@dataclass
class Running:
    process: asyncio.subprocess.Process
    address: str = ""
    said: list[str] = field(default_factory=list)

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()


@asynccontextmanager
async def serving(*flags: str) -> AsyncIterator[Running]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "diptych", "serve", "--host", "127.0.0.1", "--port", "0"),
        *("--repository", str(REPOSITORY), *flags),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    running = Running(process)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while not running.address:
                line = (await process.stdout.readline()).decode()
                running.said.append(line)
                if line.startswith("listening on "):
                    running.address = line.split()[-1]
        yield running
    finally:
        process.terminate()
        await asyncio.wait_for(process.communicate(), 60)


async def ask(address: str, times: int) -> None:
    """Each time on a connection of its own."""
    for number in range(times):
        async with AsyncClient(address) as client:
            assert (await client.embed([f"text {number}"])).vectors.shape[0] == 1


async def answered(running: Running) -> dict[str, float]:
    """How many calls ended OK, by worker, as Prometheus reads it."""
    [line] = [line for line in running.said if line.startswith("metrics on ")]
    data = await asyncio.to_thread(lambda: urllib.request.urlopen(line.split()[-1]).read())
    families = list(text_string_to_metric_families(data.decode()))
    assert len({family.name for family in families}) == len(families)
    [handled] = [family for family in families if family.name == "grpc_server_handled"]
    wanted = {"grpc_method": "Embed", "grpc_code": "OK"}
    found = [s for s in handled.samples if wanted.items() <= s.labels.items()]
    return {sample.labels["worker"]: sample.value for sample in found}


async def test_workers_share_a_port_and_one_that_dies_is_replaced() -> None:
    async with serving("--workers", "2", "--metrics-port", "0") as running:
        await ask(running.address, 8)
        assert sum((await answered(running)).values()) == 8
        first, second = running.workers()
        os.kill(first.pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while len({*running.workers()} - {first, second}) < 1:  # noqa: ASYNC110 (another process)
                await asyncio.sleep(0.1)
            await ask(running.address, 4)
        async with asyncio.timeout(60):
            while set(await answered(running)) != {"0", "1"}:  # noqa: ASYNC110 (another process)
                await asyncio.sleep(0.1)
        workers = running.workers()
    assert running.process.returncode == 0
    assert not any(worker.is_running() for worker in (first, second, *workers))


def test_workers_share_the_cores_and_have_metrics_for_their_parent_alone() -> None:
    settings = Settings(workers=2, metrics_port=9090)
    found = shares(settings)
    assert [(one.metrics_host, one.metrics_port) for one in found] == [("127.0.0.1", 0)] * 2
    assert {one.metrics_port for one in shares(Settings(workers=2))} == {None}
    assert {one.threads for one in found} == {max(1, cores() // 2)}
    assert {(one.workers, one.share_port) for one in found} == {(1, True)}


def test_settings_become_flags_that_give_the_same_settings() -> None:
    settings = Settings(model=("a", "b"), port=1, reflection=False, exact_images=True)
    assert settings.flags() == [
        *("--model", "a", "--model", "b", "--port", "1", "--exact-images", "--no-reflection")
    ]


async def test_a_worker_that_never_serves_ends_them_all() -> None:
    with pytest.raises(EngineUnavailable, match="before it served"):
        await run_workers(
            local(workers=2, model=("none",)), told=asyncio.Event(), say=lambda line: None
        )
