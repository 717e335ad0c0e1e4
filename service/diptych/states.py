"""Token ids or pixels in, hidden states out, in batches across all callers."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias

import numpy as np

from diptych.batching import Answer, Batcher
from diptych.cache import Cache
from diptych.contract import ModelSpec, Priority, Tower
from diptych.engines.base import Array, Engine
from diptych.errors import Overloaded
from diptych.metrics import Metrics
from diptych.pace import SLACK
from diptych.tracing import SPAN, Owners, batched

# One input's outputs by name, each without the batch: [D], [H] or [T, H], float32.
Outputs: TypeAlias = dict[str, Array]

_LARGEST = 16  # rows a call: at the full context they cost as much as 64 captions


@dataclass(frozen=True, slots=True)
class Row:
    """One input of a tower, and what of it is wanted."""

    inputs: tuple[tuple[str, Array], ...]  # by name, without the batch
    outputs: tuple[str, ...]  # sorted

    @property
    def key(self) -> tuple[tuple[str, ...], bytes]:
        return self.outputs, _digest(self)


class States:
    """Both towers of one model on one engine, for whatever outputs are asked of them.

    Beside `towers.Towers`, whose batches they share the engine with: those want one output, at
    the texts' own length. Only what is asked for is computed or copied, as far as the engine can.
    """

    def __init__(
        self, spec: ModelSpec, engine: Engine, metrics: Metrics, *, max_batch: int, cache_bytes: int
    ) -> None:
        self.spec = spec
        self._engine = engine
        self._metrics = metrics
        self._owners = Owners()
        self._inside = dict.fromkeys(Tower, 0)
        self._cache: Cache[Answer[Outputs]] = Cache(cache_bytes, _kept_bytes)
        most = min(max_batch, _LARGEST)
        self._batchers: dict[Tower, Batcher[Row, Outputs]] = {
            Tower.IMAGE: Batcher(self._run_images, max_items=most, in_flight=1, digest=_digest),
            Tower.TEXT: Batcher(self._run_texts, max_items=most, in_flight=1, digest=_digest),
        }

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Batches are formed and run within this."""
        tasks = [asyncio.create_task(batcher.serve()) for batcher in self._batchers.values()]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def waiting(self, tower: Tower) -> int:
        """Inputs that wait for a batch of this tower."""
        return len(self._batchers[tower])

    @property
    def kept_bytes(self) -> int:
        """Bytes of what is kept by content."""
        return self._cache.bytes

    def has(self, tower: Tower, output: str) -> bool:
        """Whether the graph of a tower has this output."""
        return output in self.spec.outputs(tower)

    async def get(
        self, tower: Tower, row: Row, *, priority: Priority, deadline: float
    ) -> Answer[Outputs]:
        """The outputs of one row; the same content at the same time is computed once.

        Raises:
            Overloaded: at once, when so much is ahead of it that its deadline would pass.
            DeadlinePassed: before its work began.
            EngineError: the engine is away, or failed this row's batch.
        """

        async def compute() -> Answer[Outputs]:
            submitted, batcher = time.perf_counter(), self._batchers[tower]
            with self._owners.owning(row), self._in_time(tower, deadline):
                answer = await batcher.submit(row, priority=priority, deadline=deadline)
            self._metrics.spent("queue", answer.queue_s)
            self._metrics.spent("engine", answer.engine_s)
            if (span := SPAN.get()) is not None:
                begun = submitted + answer.queue_s
                span.stage("queue", submitted, begun)
                span.stage("engine", begun, begun + answer.engine_s)
            return answer

        return await self._cache.get((tower, row.key), priority, compute)

    @contextmanager
    def _in_time(self, tower: Tower, deadline: float) -> Iterator[None]:
        """Count one row in, unless it could only be late."""
        ahead = self._inside[tower]
        wait_s = self._batchers[tower].pace.answered_s(ahead)
        left_s = deadline - asyncio.get_running_loop().time()
        if SLACK * wait_s > left_s:
            raise Overloaded(
                f"{ahead} inputs are ahead: an answer would take about {wait_s:.2f} s; "
                f"the deadline is in {max(left_s, 0):.2f} s"
            )
        self._inside[tower] += 1
        try:
            yield
        finally:
            self._inside[tower] -= 1

    async def _run_images(self, batch: list[Row], timeout_s: float) -> list[Outputs]:
        return await self._run(Tower.IMAGE, batch, timeout_s)

    async def _run_texts(self, batch: list[Row], timeout_s: float) -> list[Outputs]:
        return await self._run(Tower.TEXT, batch, timeout_s)

    async def _run(self, tower: Tower, batch: list[Row], timeout_s: float) -> list[Outputs]:
        """One call for each choice of outputs."""
        ends = asyncio.get_running_loop().time() + timeout_s
        found: dict[int, Outputs] = {}
        order = sorted(range(len(batch)), key=lambda place: batch[place].outputs)
        for outputs, group in groupby(order, key=lambda place: batch[place].outputs):
            places = list(group)
            left_s = ends - asyncio.get_running_loop().time()
            rows = await self._call(tower, [batch[place] for place in places], outputs, left_s)
            found.update(zip(places, rows, strict=True))
        return [found[place] for place in range(len(batch))]

    async def _call(
        self, tower: Tower, rows: Sequence[Row], outputs: tuple[str, ...], timeout_s: float
    ) -> list[Outputs]:
        inputs = {
            name: np.stack([row.inputs[place][1] for row in rows])
            for place, (name, _) in enumerate(rows[0].inputs)
        }
        began = time.perf_counter()
        facts: dict[str, int | str] = {"diptych.tower": tower, "diptych.inputs": len(rows)}
        with batched(self._owners.of(rows), "batch", facts):
            answer = await self._engine.run(
                tower, inputs, outputs, timeout_s=timeout_s if math.isfinite(timeout_s) else None
            )
        self._metrics.ran(tower, len(rows), time.perf_counter() - began)
        # Copies: a view would keep the whole batch for as long as one of its rows is cached.
        return [{name: answer[name][row].copy() for name in outputs} for row in range(len(rows))]


def _digest(row: Row) -> bytes:
    whole = hashlib.sha256()
    for name, values in row.inputs:
        whole.update(f"{name} {values.dtype} {values.shape} ".encode())
        whole.update(np.ascontiguousarray(values).data)
    return whole.digest()


def _kept_bytes(answer: Answer[Outputs]) -> int:
    return sum(values.nbytes for values in answer.result.values()) + 800  # the objects around them
