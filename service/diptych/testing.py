"""Stand-ins for our own tests and for those of our users."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np

from diptych.contract import ModelSpec, Tower
from diptych.engines.base import PIXELS, Array, check_answer


class FakeEngine:
    """An engine whose vectors follow from the inputs alone.

    Remembers its batches, can be made to wait, to fail, or to answer nonsense.
    """

    description = "fake"
    in_flight = 1

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self.batch_sizes: list[int] = []
        self.gate = asyncio.Event()  # cleared: batches wait
        self.gate.set()
        self.failure: Exception | None = None  # what every batch raises
        self.answer: Array | None = None  # what every batch answers, right or wrong

    async def run(
        self, tower: Tower, inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> dict[str, Array]:
        items = inputs[PIXELS if tower is Tower.IMAGE else "input_ids"]
        self.batch_sizes.append(len(items))
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        answer = {
            name: self._vectors(items) if self.answer is None else self.answer for name in outputs
        }
        check_answer(self._spec, tower, len(items), answer)
        return answer

    def _vectors(self, items: Array) -> Array:
        sums = items.reshape(len(items), -1).sum(axis=1, dtype=np.float64)
        return np.cos(np.outer(sums + 1, np.arange(1, self._spec.embed_dim + 1))).astype(np.float32)

    async def close(self) -> None:
        """Nothing to release."""
