"""Pixels or token ids in, unit vectors out, in batches across all callers."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from diptych.batching import Answer, Batcher
from diptych.contract import Matrix, ModelSpec, Pixels, Priority, Tokens, Tower, Vector
from diptych.engines.base import EMBEDS, MASK, PIXELS, TOKENS, Engine
from diptych.metrics import Metrics
from diptych.preprocess.text import by_length, pad_tokens
from diptych.scoring import unit
from diptych.tracing import Owners, Span, batched


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
        self._spec = spec
        self._engine = engine
        self._metrics = metrics
        self._owners = Owners()
        self._images: Batcher[Pixels, Vector] = Batcher(
            self._run_images,
            max_items=max_batch,
            in_flight=engine.in_flight,
            digest=_digest,
            call_items=call_items[Tower.IMAGE],
        )
        # Texts are cheaper, and more of them are cut into better groups by length.
        texts = max_batch if max_batch == 1 else 2 * max_batch
        self._texts: Batcher[Tokens, Vector] = Batcher(
            self._run_texts,
            max_items=texts,
            in_flight=engine.in_flight,
            digest=_digest,
            groups=self._groups if spec.text.padding == "longest" else None,
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

    def expected_s(self, tower: Tower, items: int) -> float:
        """How long so many would take, at the pace of late; 0 while that is not known."""
        return (self._images if tower is Tower.IMAGE else self._texts).pace.expected_s(items)

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
        inputs = {PIXELS: np.stack(batch)}
        return await self._run(Tower.IMAGE, inputs, timeout_s, self._owners.of(batch))

    def _groups(self, batch: list[Tokens]) -> list[list[int]]:
        """Texts of like length: each group is padded to its own longest."""
        lengths = [len(tokens) for tokens in batch]
        return by_length(lengths, self._engine.call_tokens, self._engine.length_step)

    async def _run_texts(self, batch: list[Tokens], timeout_s: float) -> Matrix:
        tokens, mask = pad_tokens(batch, self._spec.text, self._engine.length_step)
        inputs = (
            {TOKENS: tokens, MASK: mask} if self._spec.text.attention_mask else {TOKENS: tokens}
        )
        return await self._run(Tower.TEXT, inputs, timeout_s, self._owners.of(batch))

    async def _run(
        self,
        tower: Tower,
        inputs: dict[str, npt.NDArray[Any]],
        timeout_s: float,
        spans: list[Span],
    ) -> Matrix:
        name, rows = EMBEDS[tower], len(next(iter(inputs.values())))
        began = time.perf_counter()
        with batched(spans, "batch", {"diptych.tower": tower, "diptych.inputs": rows}):
            answer = await self._engine.run(
                tower, inputs, [name], timeout_s=timeout_s if math.isfinite(timeout_s) else None
            )
        self._metrics.ran(tower, rows, time.perf_counter() - began)
        return unit(answer[name])


def _digest(item: npt.NDArray[Any]) -> bytes:
    return hashlib.sha256(item.data).digest()
