"""EmbedStream through a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator

import numpy as np
import pytest

from diptych.errors import BadInput, DiptychError, EngineUnavailable, NotFound
from diptych.v1 import embedding_pb2 as pb
from diptych.wire import Input, Options
from tests.drawing import encoded, red_circle
from tests.serving import SHAPES, faulty, served

CIRCLE = encoded(red_circle())


async def each(items: list[tuple[str, Input]]) -> AsyncIterator[tuple[str, Input]]:
    for item in items:
        yield item


async def test_every_input_is_answered_under_its_id() -> None:
    captions = [f"a {c} {s}" for c in ("red", "blue") for s in ("circle", "square", "star")]
    items: list[tuple[str, Input]] = [(str(n), captions[n % 6]) for n in range(1000)]
    items[500] = ("picture", CIRCLE)
    async with served(stream_inputs=64) as client:
        expected = (await client.embed(captions)).vectors
        found = {r.id: r async for r in client.embed_stream(each(items), half=True)}
    assert set(found) == {id_ for id_, _ in items}
    for number in (0, 7, 999):
        np.testing.assert_allclose(found[str(number)].vector, expected[number % 6], atol=2e-3)
    assert found["picture"].space.fingerprint == SHAPES.spec.fingerprint


async def test_a_bad_input_leaves_the_stream_open() -> None:
    items: list[tuple[str, Input]] = [("good", "a"), ("bad", b"broken"), ("also good", "b")]
    async with served() as client:
        found = {r.id: r.result async for r in client.embed_stream(each(items))}
    bad = found.pop("bad")
    assert isinstance(bad, BadInput)
    assert bad.violations[0].field == "input.image"
    assert not any(isinstance(result, DiptychError) for result in found.values())


async def test_the_server_reads_no_further_than_its_window() -> None:
    read = 0

    async def endless() -> AsyncIterator[tuple[str, Input]]:
        nonlocal read
        while True:
            read += 1
            yield str(read), "x" * 1000  # too large for buffers on the way to hide much
            await asyncio.sleep(0)

    async with faulty(stream_inputs=8) as server, server.client() as client:
        server.engine.gate.clear()
        stream = client.embed_stream(endless(), Options(truncate=True))
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(1)
        before = read
        await asyncio.sleep(0.5)
        assert read - before < 5  # flow control has stopped the caller
        server.engine.gate.set()
        await first
        while read == before:  # it goes on once results are taken; the test's time limit bounds it
            await anext(stream)
        await stream.aclose()


async def test_a_stream_yields_room_to_calls() -> None:
    items: list[tuple[str, Input]] = [(str(n), "a") for n in range(50)]
    async with faulty(max_waiting_inputs=8) as server, server.client() as client:
        server.engine.gate.clear()
        found = asyncio.create_task(_all(client.embed_stream(each(items))))
        await asyncio.sleep(0.2)
        call = asyncio.create_task(client.embed(["b"] * 4))  # half is kept for it
        await asyncio.sleep(0.1)
        server.engine.gate.set()
        assert (await call).vectors.shape[0] == 4
        assert len(await found) == 50


async def _all(stream: AsyncIterable[object]) -> list[object]:
    return [item async for item in stream]


async def test_what_concerns_the_whole_stream_ends_it() -> None:
    async with faulty() as server, server.client() as client:
        with pytest.raises(NotFound):
            await _all(client.embed_stream(each([("a", "a")]), Options(model="dalle")))
        server.engine.failure = EngineUnavailable("the engine is away")
        with pytest.raises(EngineUnavailable):
            await _all(client.embed_stream(each([("a", "a")])))
        server.engine.failure = None
        assert len(await _all(client.embed_stream(each([("a", "a")])))) == 1


async def test_options_come_once_and_an_empty_stream_is_no_error() -> None:
    options = pb.EmbedStreamRequest(options=pb.EmbedStreamOptions())
    async with served() as client:
        twice = client._stub.EmbedStream(iter([options, options]))
        with pytest.raises(Exception, match="belongs into the first message only"):
            await _all(twice)
        assert await _all(client._stub.EmbedStream(iter([]))) == []
        assert await _all(client.embed_stream(each([]))) == []


async def test_a_caller_who_leaves_takes_his_work_along() -> None:
    async with faulty(max_waiting_inputs=40) as server, server.client() as client:
        server.engine.gate.clear()
        items: list[tuple[str, Input]] = [(str(n), "a") for n in range(20)]
        leaving = asyncio.create_task(_all(client.embed_stream(each(items))))
        await asyncio.sleep(0.2)
        leaving.cancel()
        await asyncio.sleep(0.2)
        server.engine.gate.set()
        assert (await client.embed(["b"] * 40)).vectors.shape[0] == 40  # all room is free again
