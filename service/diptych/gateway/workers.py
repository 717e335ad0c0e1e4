"""Several gateways on one port: the way past the one core that a Python process computes with."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

from prometheus_client import CollectorRegistry

from diptych.errors import EngineUnavailable
from diptych.gateway.exposition import METRICS, WorkersMetrics, exposed
from diptych.settings import Settings, cores

LISTENING = "listening on "  # what a worker, like any server, says when health says SERVING

_STOP_S = 10.0  # beyond the drain, before a worker that was told to stop is killed


async def run_workers(
    settings: Settings, *, told: asyncio.Event, say: Callable[[str], None]
) -> None:
    """Keep `settings.workers` gateways running on one port until `told`.

    The kernel spreads connections among them (SO_REUSEPORT); each has its own engine, caches,
    limits and share of the cores. One that dies is started again, unless it never served.

    Raises:
        EngineUnavailable: one ended before it served; its own words are above.
        OSError: the port is taken.
    """
    metrics, registry = WorkersMetrics(), CollectorRegistry()
    registry.register(metrics)
    with _reserved(settings) as port, exposed(registry, settings) as exposed_at:
        workers = [replace(one, port=port) for one in shares(settings)]
        say(f"{len(workers)} workers of {workers[0].threads} engine threads each")
        if exposed_at:
            say(f"{METRICS}{exposed_at}/metrics")
        ready = [asyncio.Event() for _ in workers]
        running = [
            asyncio.create_task(_keep_running(worker, number, event, metrics, say))
            for number, (worker, event) in enumerate(zip(workers, ready, strict=True))
        ]
        announcing = asyncio.create_task(_announce(ready, f"{settings.host}:{port}", say))
        waiting = asyncio.create_task(told.wait())
        try:
            await asyncio.wait([*running, waiting], return_when=asyncio.FIRST_COMPLETED)
            for task in running:
                if task.done():
                    task.result()
        finally:
            for ended in (*running, announcing, waiting):
                ended.cancel()
            await asyncio.gather(*running, announcing, waiting, return_exceptions=True)


def shares(settings: Settings) -> list[Settings]:
    """What each worker is to be started with."""
    own = max(1, cores() // settings.workers)
    return [
        replace(
            settings,
            workers=1,
            share_port=True,
            threads=settings.threads or own,
            decoders=settings.decoders or own,
            # Asked by the parent alone, who tells of all of them.
            metrics_port=None if settings.metrics_port is None else 0,
            metrics_host="127.0.0.1",
        )
        for _ in range(settings.workers)
    ]


async def _announce(ready: list[asyncio.Event], address: str, say: Callable[[str], None]) -> None:
    for event in ready:
        await event.wait()
    say(f"{LISTENING}{address}")


async def _keep_running(
    settings: Settings,
    number: int,
    ready: asyncio.Event,
    metrics: WorkersMetrics,
    say: Callable[[str], None],
) -> None:
    while True:
        async with _worker(settings) as process:
            assert process.stdout is not None
            async for line in process.stdout:
                text = line.decode(errors="replace").rstrip()
                if text.startswith(LISTENING):
                    ready.set()
                elif text.startswith(METRICS):
                    metrics.addresses[number] = text.removeprefix(METRICS).split("/")[0]
                else:
                    say(f"worker {number}: {text}")
            status = await process.wait()
        metrics.addresses.pop(number, None)
        if not ready.is_set():
            raise EngineUnavailable(f"worker {number} ended with status {status} before it served")
        say(f"worker {number} ended with status {status}; the next one starts")


@asynccontextmanager
async def _worker(settings: Settings) -> AsyncIterator[asyncio.subprocess.Process]:
    """One gateway process, drained and gone at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "diptych", "serve", *settings.flags()),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl+C reaches it through us, once
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), settings.drain_s + _STOP_S)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()


@contextmanager
def _reserved(settings: Settings) -> Iterator[int]:
    """The port, kept from all but ourselves and our workers; port 0 picks a free one.

    It is bound but not listened on, so the kernel hands it no connection.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as alone:
        try:
            alone.bind((settings.host, settings.port))  # is it free at all?
        except OSError as exc:
            raise OSError(f"cannot listen on {settings.host}:{settings.port}") from exc
        port: int = alone.getsockname()[1]
    with socket.socket(family) as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        keeper.bind((settings.host, port))
        yield port
