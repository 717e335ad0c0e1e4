"""What a stranger can put where a method's name belongs, with no callers known."""

from __future__ import annotations

import asyncio

import pytest

from diptych.client import AsyncClient
from diptych.gateway.server import gateway
from tests.http2 import MESSAGE, call, request
from tests.serving import local

UNIMPLEMENTED = 12
NO_TEXT = b"/diptych.v1.EmbeddingService/\xff\xfe"


async def test_a_path_that_is_no_text_ends_a_call_and_not_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        gateway(local(health_port=0)) as running,
        AsyncClient(running.address, retries=False) as client,
    ):
        assert running.health_address
        for address in (running.address, running.health_address):
            for path in (NO_TEXT, b"\xff", b"/a.b/C", b"", NO_TEXT):
                answer = await call(address, request(path), MESSAGE)
                assert (answer.code, answer.message) == (UNIMPLEMENTED, "Method not found!")
        assert (await client.embed(["still there"])).results
        health = request(b"/grpc.health.v1.Health/Check")
        assert (await call(running.health_address, health, MESSAGE)).data[5:] == b"\x08\x01"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_many_unknown_paths_at_once_are_all_answered() -> None:
    async with gateway(local()) as running:
        calls = [call(running.address, request(NO_TEXT), MESSAGE) for _ in range(100)]
        assert {answer.code for answer in await asyncio.gather(*calls)} == {UNIMPLEMENTED}
