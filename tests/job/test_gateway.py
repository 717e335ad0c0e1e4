"""A job through a gateway that others use: they are served first."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from tests.job.making import HOW, jpeg, run, write_tars
from tests.serving import faulty

BATCH = 4
BATCH_S = 0.03


async def test_online_calls_overtake_the_inputs_of_a_job(tmp_path: Path) -> None:
    source = write_tars(tmp_path / "in", 300, 300)
    async with faulty(max_batch=BATCH) as running, running.client() as client:

        async def one_batch_at_a_time() -> None:
            while True:
                running.engine.gate.clear()
                await asyncio.sleep(BATCH_S)
                running.engine.gate.set()
                await asyncio.sleep(0.001)

        slowly = asyncio.create_task(one_batch_at_a_time())
        how = replace(HOW, engine=f"gateway://{running.address}")
        job = asyncio.create_task(asyncio.to_thread(run, source, tmp_path / "out", how))
        overtaken, ran = [], running.engine.batches
        while len(ran) < 3:  # noqa: ASYNC110 (an event would only be there for this)
            await asyncio.sleep(0.01)
        for number in range(10):
            before = len(ran)
            await client.embed([jpeg(1000 + number)])
            overtaken.append(len(ran) - before)
        assert not job.done()
        # The batch that runs, its own, and one more of bulk work, which is sure of an eighth; the
        # job's 128 inputs inside would be 32 batches.
        assert sorted(overtaken)[-2] <= 4, overtaken
        slowly.cancel()
        running.engine.gate.set()
        assert await job == 0
