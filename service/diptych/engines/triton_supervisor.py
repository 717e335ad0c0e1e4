"""A tritonserver that is started again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from diptych.engines.triton_install import PINS, VENV, install
from diptych.engines.triton_server import TritonServer, reserved, tritonserver
from diptych.errors import EngineUnavailable

_SHORT_LIFE_S = 3.0  # died sooner than that after it was ready: starting it at once is no use
_REST_S = 1.0  # before the start after a short life, twice as long after each further one
_LONGEST_REST_S = 16.0


async def run_triton(
    repository: Path,
    *,
    log: Path,
    told: asyncio.Event,
    say: Callable[[str], None],
    port: int = 0,
    poll_s: int = 0,
    folder: Path = VENV,
    pins: Path = PINS,
) -> None:
    """Set a tritonserver up where there is none yet, and keep one running until `told`.

    When it dies, or a Python stub of it, which Triton neither replaces nor reports, the rest is
    killed and a new one started at the same address; the log of the old one is kept beside `log`,
    as `log` with the suffix `.old`. New versions are looked for every `poll_s`, or never.

    Raises:
        EngineUnavailable: it cannot be installed, or did not start the first time.
    """
    running = asyncio.create_task(_run(repository, log, say, port, poll_s, folder, pins))
    waiting = asyncio.create_task(told.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if told.is_set():
        say("stopping tritonserver")
    for task in (running, waiting):
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def _run(
    repository: Path,
    log: Path,
    say: Callable[[str], None],
    port: int,
    poll_s: int,
    folder: Path,
    pins: Path,
) -> None:
    installed = await asyncio.to_thread(install, folder, pins)
    with reserved(port) as place:
        start = partial(tritonserver, repository, installed, log=log, port=place, poll_s=poll_s)
        async with start() as server:
            say(f"tritonserver {server.pid} on {server.address} (gRPC), log in {log}")
            say(f"serve through it: diptych serve --engine triton://{server.address}")
            end, life_s = await _end(server)
        rest_s = 0.0
        while True:
            rest_s = _next_rest(rest_s, life_s)
            old = log.with_name(f"{log.name}.old")
            os.replace(log, old)
            say(f"{end}, its log is in {old}; the next one starts in {rest_s:.0f} s")
            await asyncio.sleep(rest_s)
            try:
                async with start() as server:
                    say(f"tritonserver {server.pid} on {server.address} (gRPC), log in {log}")
                    end, life_s = await _end(server)
            except EngineUnavailable as exc:  # it did start before: this may pass
                end, life_s = str(exc), 0.0


async def _end(server: TritonServer) -> tuple[str, float]:
    """How the server died, and how long it lived, in seconds."""
    born = time.monotonic()
    return await server.broken(), time.monotonic() - born


def _next_rest(last_s: float, life_s: float) -> float:
    if life_s >= _SHORT_LIFE_S:
        return 0.0
    return min(max(_REST_S, 2 * last_s), _LONGEST_REST_S)
