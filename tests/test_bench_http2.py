"""The load client's own HTTP/2, against a real gRPC server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from bench.http2 import Connection

METHOD = "/test.Echo/Answer"
MIB = 2**20


async def _echo(request: bytes, context: Any) -> bytes:
    if request == b"busy":
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", (("why-bin", b"\0" * 99),))
    if request == b"late":
        await asyncio.sleep(30)
    if request == b"broken":
        raise ValueError("no")
    return request


@asynccontextmanager
async def _server() -> AsyncIterator[tuple[str, grpc.aio.Server]]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.aio.server(options=options)
    handlers: dict[str, Any] = {"Answer": grpc.unary_unary_rpc_method_handler(_echo)}
    server.add_registered_method_handlers("test.Echo", handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", server
    finally:
        await server.stop(0)


@asynccontextmanager
async def _connected(deadline_s: float | None = None) -> AsyncIterator[Connection]:
    async with _server() as (address, _):
        connection = await Connection.open(address, METHOD, deadline_s)
        try:
            async with asyncio.timeout(30):
                yield connection
        finally:
            connection.close()


async def test_messages_larger_than_every_window_come_back_whole() -> None:
    draw = random.Random(0)
    sent = [draw.randbytes(size) for size in (0, 1, 16_384, 65_530, 65_536, 3 * MIB, 7 * MIB)] * 3
    async with _connected() as connection:
        answers = await asyncio.gather(*map(connection.call, sent))
    assert [code for code, _ in answers] == ["OK"] * len(sent)
    assert [reply for _, reply in answers] == sent


async def test_a_connection_goes_on_after_a_thousand_calls_of_every_end() -> None:
    async with _connected() as connection:
        for _ in range(250):
            calls = [connection.call(sent) for sent in (b"a", b"busy", b"broken", b"b")]
            assert await asyncio.gather(*calls) == [
                ("OK", b"a"),
                ("RESOURCE_EXHAUSTED", b""),
                ("UNKNOWN", b""),
                ("OK", b"b"),
            ]


async def test_a_call_ends_at_its_deadline_and_the_next_is_answered() -> None:
    async with _connected(deadline_s=0.2) as connection:
        began = asyncio.get_running_loop().time()
        late = [connection.call(b"late") for _ in range(20)]
        assert set(await asyncio.gather(*late)) == {("DEADLINE_EXCEEDED", b"")}
        assert asyncio.get_running_loop().time() - began < 5
        assert await connection.call(b"a") == ("OK", b"a")


async def test_a_method_that_is_not_served_is_told_by_its_code() -> None:
    async with _server() as (address, _):
        connection = await Connection.open(address, "/test.Echo/Nothing")
        assert await connection.call(b"") == ("UNIMPLEMENTED", b"")
        connection.close()


async def test_calls_of_a_connection_that_is_lost_are_no_answers() -> None:
    async with _server() as (address, server):
        connection = await Connection.open(address, METHOD)
        late = connection.call(b"late")
        await asyncio.sleep(0.1)
        await server.stop(0)
        code, reply = await asyncio.wait_for(late, 10)
        assert (code != "OK", reply) == (True, b"")
        await asyncio.sleep(0.1)
        again, _ = await asyncio.wait_for(connection.call(b"a"), 10)
        assert again in ("GOAWAY", "CONNECTION_LOST")


async def test_what_is_no_grpc_server_is_refused() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(OSError, match="no gRPC server"):
        await asyncio.wait_for(Connection.open(f"127.0.0.1:{port}", METHOD), 10)
    server.close()
    with pytest.raises(OSError, match=r"[Cc]onnect"):
        await Connection.open(f"127.0.0.1:{port}", METHOD)
