"""Pixels or token ids in, unit vectors out, in batches across all callers."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import numpy as np

from diptych.batching import Answer, Batcher
from diptych.contract import Matrix, ModelSpec, Pixels, Priority, Tokens, Tower, Vector
from diptych.engines.base import EMBEDS, PIXELS, Array, Engine
from diptych.metrics import Metrics
from diptych.scoring import unit
from diptych.text_calls import WORTH, TextCalls
from diptych.tracing import Owners, batched

_LEAST_IMAGES = 8  # a call; what one costs beside them is measured at start, and not exactly


class Towers:
    """Both towers of one model on one engine, each with a batcher of its own."""

    def __init__(
        self,
        spec: ModelSpec,
        engine: Engine,
        metrics: Metrics,
        *,
        max_batch: int,
        call_items: Mapping[Tower, float],
    ) -> None:
        """`call_items`: what a call of each tower costs beside its items, in items."""
        self._engine = engine
        self._text_calls = TextCalls.on(engine, spec)
        self._metrics = metrics
        self._owners = Owners()
        worth = max(_LEAST_IMAGES, round(WORTH * call_items[Tower.IMAGE]))
        self._images: Batcher[Pixels, Vector] = Batcher(
            self._run_images,
            max_items=min(worth, max_batch),
            in_flight=engine.in_flight,
            digest=_digest,
            call_items=call_items[Tower.IMAGE],
        )
        # Texts are cheaper, and more of them are cut into better calls.
        texts = max_batch if max_batch == 1 else 2 * max_batch
        self._texts: Batcher[Tokens, Vector] = Batcher(
            self._run_texts,
            max_items=texts,
            in_flight=engine.in_flight,
            digest=_digest,
            groups=self._groups,
            call_items=call_items[Tower.TEXT],
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Batches are formed and run within this."""
        tasks = [asyncio.create_task(b.serve()) for b in (self._images, self._texts)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def answered_s(self, tower: Tower, ahead: int) -> float:
        """How long until one is answered that has so many ahead; 0 while that is not known."""
        return (self._images if tower is Tower.IMAGE else self._texts).pace.answered_s(ahead)

    def waiting(self, tower: Tower) -> int:
        """Inputs that wait for a batch of this tower."""
        return len(self._images if tower is Tower.IMAGE else self._texts)

    async def embed_image(
        self, pixels: Pixels, *, priority: Priority, deadline: float = math.inf
    ) -> Answer[Vector]:
        """uint8 [S, S, 3] to a unit vector [D]. Errors are those of `Batcher.submit`."""
        with self._owners.owning(pixels):
            return await self._images.submit(pixels, priority=priority, deadline=deadline)

    async def embed_text(
        self, tokens: Tokens, *, priority: Priority, deadline: float = math.inf
    ) -> Answer[Vector]:
        """int64 [L'], not padded, to a unit vector [D]. Errors are those of `Batcher.submit`."""
        with self._owners.owning(tokens):
            return await self._texts.submit(tokens, priority=priority, deadline=deadline)

    async def _run_images(self, batch: list[Pixels], timeout_s: float) -> Matrix:
        inputs, output = {PIXELS: np.stack(batch)}, EMBEDS[Tower.IMAGE]
        answer = await self._run(Tower.IMAGE, batch, inputs, output, timeout_s)
        return unit(answer[output])

    def _groups(self, batch: list[Tokens]) -> list[list[int]]:
        return self._text_calls.cut([len(tokens) for tokens in batch])

    async def _run_texts(self, batch: list[Tokens], timeout_s: float) -> Matrix:
        call = self._text_calls.call(batch)
        answer = await self._run(Tower.TEXT, batch, call.inputs, call.output, timeout_s)
        return unit(call.embeds(answer))

    async def _run(
        self,
        tower: Tower,
        batch: Sequence[Array],
        inputs: dict[str, Array],
        output: str,
        timeout_s: float,
    ) -> dict[str, Array]:
        facts: dict[str, int | str] = {"diptych.tower": tower, "diptych.inputs": len(batch)}
        began = time.perf_counter()
        with batched(self._owners.of(batch), "batch", facts):
            answer = await self._engine.run(
                tower, inputs, [output], timeout_s=timeout_s if math.isfinite(timeout_s) else None
            )
        self._metrics.ran(tower, len(batch), time.perf_counter() - began)
        return answer


def _digest(item: Array) -> bytes:
    return hashlib.sha256(item.data).digest()
