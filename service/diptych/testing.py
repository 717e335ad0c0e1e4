"""Stand-ins for our own tests and for those of our users."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from diptych.contract import ModelSpec, Tower
from diptych.engines.base import Array, Engine, check_answer


class FaultyEngine:
    """A real engine that can be made to wait, to fail, or to answer nonsense.

    Remembers its batches.
    """

    def __init__(self, engine: Engine, spec: ModelSpec, *, canary_every_s: float = 30.0) -> None:
        self._engine = engine
        self._spec = spec
        self.description = f"faulty {engine.description}"
        self.in_flight = 1
        self.call_tokens = engine.call_tokens
        self.length_step = engine.length_step
        self.canary_every_s = canary_every_s
        self.canary_timeout_s = 0.5
        self.well = False  # what it says when its canary takes longer
        self.batches: list[tuple[Tower, int]] = []  # tower, inputs
        self.gate = asyncio.Event()  # cleared: batches wait
        self.gate.set()
        self.failure: Exception | None = None  # what every batch raises
        self.answer: Array | None = None  # what every batch answers, right or wrong

    async def is_well(self) -> bool:
        return self.well

    async def run(
        self,
        tower: Tower,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Array]:
        rows = len(next(iter(inputs.values())))
        self.batches.append((tower, rows))
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        if self.answer is None:
            return await self._engine.run(tower, inputs, outputs, timeout_s=timeout_s)
        forged = dict.fromkeys(outputs, self.answer)
        check_answer(self._spec, tower, rows, forged)
        return forged

    async def close(self) -> None:
        await self._engine.close()
