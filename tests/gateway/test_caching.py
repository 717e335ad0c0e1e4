"""Results kept by content, through a real socket: never a wrong one."""

from __future__ import annotations

import asyncio

import numpy as np

from diptych.contract import Tower
from diptych.wire import Options
from tests.drawing import encoded, red_circle
from tests.serving import faulty

CIRCLE = encoded(red_circle())
LONG = " ".join(["circle"] * 300)


async def test_what_was_computed_once_is_not_computed_again() -> None:
    async with faulty() as server, server.client() as client:
        first = await client.embed(["a star", CIRCLE])
        again = await client.embed(["a star", CIRCLE])
        scored = await client.score([CIRCLE], ["a star"])
    np.testing.assert_array_equal(first.vectors, again.vectors)
    assert again.timings.engine_s == 0.0
    assert scored.timings.engine_s == 0.0
    assert sorted(server.engine.batches) == [(Tower.IMAGE, 1), (Tower.TEXT, 1)]


async def test_a_thundering_herd_is_one_batch_of_one() -> None:
    async with faulty() as server, server.client() as client:
        await asyncio.gather(*(client.embed(["a star"] * 10) for _ in range(50)))
    assert server.engine.batches == [(Tower.TEXT, 1)]


async def test_how_an_input_is_read_is_part_of_its_key() -> None:
    async with faulty() as server, server.client() as client:
        cut = await client.embed([LONG], Options(truncate=True))
        [refused] = (await client.embed([LONG])).results
        short = await client.embed(["a star"], Options(dimensions=8))
        whole = await client.embed(["a star"])
        half = await client.embed(["a star"], half=True)
        await client.embed([CIRCLE])
        await client.embed([CIRCLE], Options(exif=False))
    assert cut.vectors.shape[0] == 1
    assert isinstance(refused, Exception)
    assert (short.vectors.shape[1], whole.vectors.shape[1]) == (8, half.vectors.shape[1])
    assert [tower for tower, _ in server.engine.batches].count(Tower.IMAGE) == 2


async def test_caches_can_be_switched_off() -> None:
    off = {"text_cache_bytes": 0, "image_cache_bytes": 0}
    async with faulty(**off) as server, server.client() as client:
        await client.embed(["a star", CIRCLE])
        await client.embed(["a star", CIRCLE])
    assert len(server.engine.batches) == 4
