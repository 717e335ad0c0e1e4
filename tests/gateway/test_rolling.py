"""Restarts that callers do not notice. The long run is `python -m bench.rolling`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from bench import rolling

from diptych.client import AsyncClient
from diptych.gateway import server
from diptych.gateway.server import gateway
from tests.serving import local


async def test_a_rolling_restart_fails_no_call(tmp_path: Path) -> None:
    flags, credentials = rolling.tls(tmp_path)
    flags += ["--provider", "cpu"]  # starts sooner
    tally, took = await rolling.measure(1, 10, flags, credentials)
    assert len(took) == 2
    assert not tally.failed
    assert all(tally.answered[kind] for kind in ("texts", "pictures", "streams", "threads"))


async def test_a_stream_outlives_the_age_of_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "_CONNECTION_AGE_MS", 100)
    async with gateway(local(drain_s=0.2)) as running, AsyncClient(running.address) as client:

        async def inputs() -> AsyncIterator[tuple[str, str]]:
            for number in range(15):
                yield str(number), f"text {number}"
                await asyncio.sleep(0.1)

        assert len([one async for one in client.embed_stream(inputs())]) == 15
