"""Many small calls in, few large calls out."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from diptych.contract import Priority
from diptych.errors import DeadlinePassed, EngineFailed, EngineUnavailable

Item = TypeVar("Item")
Result = TypeVar("Result")
# A batch, and the seconds after which none of its callers waits any more.
Run: TypeAlias = Callable[[list[Item], float], Awaitable[Iterable[Result]]]

_BULK_SHARE = 8  # one place in so many of every batch is kept for bulk work
_PATIENCE = 3  # items that fail alone, one after another, before the engine itself is blamed
_MAX_CULPRITS = 1024  # the oldest is forgotten first


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """When a batch is full: the dearest item's cost times their number reaches `max_cost`."""

    max_items: int = 64  # larger batches stop being faster and delay whoever comes next
    max_cost: float = math.inf  # padded tokens for texts; images cost 1 each


@dataclass(frozen=True, slots=True)
class Answer(Generic[Result]):
    result: Result
    queue_s: float  # from submission to the start of the batch
    engine_s: float  # the batch


@dataclass(slots=True)
class _Entry(Generic[Item, Result]):
    item: Item
    cost: float
    deadline: float  # of the event loop's clock
    submitted: float
    reply: asyncio.Future[Answer[Result]]
    digest: bytes = b""  # made when first needed


class Batcher(Generic[Item, Result]):
    """Gathers items submitted by many tasks into few calls of `run`.

    Natural batching: an idle engine starts at once with what is there; while all `in_flight`
    calls are busy, work gathers. Nothing ever waits for company. Interactive work goes before
    bulk work, within each the nearest deadline first; an eighth of every batch is kept for bulk
    work, so that it moves, and delays interactive work by no more than one batch. An item whose
    caller has gone or whose deadline has passed is dropped before the call, never computed.

    When a batch fails, its items are run again one by one: the culprit gets the error, the others
    their results. A culprit is remembered by its `digest` and runs alone from then on, so that it
    cannot fail its neighbours again.

    What may wait is bounded before it comes here, by `admission.Admission`.
    """

    def __init__(
        self,
        run: Run[Item, Result],
        limits: BatchLimits,
        *,
        in_flight: int,
        digest: Callable[[Item], bytes],
        cost: Callable[[Item], float] = lambda item: 1.0,
    ) -> None:
        self._run = run
        self._limits = limits
        self._in_flight = in_flight
        self._cost = cost
        self._digest = digest
        self._culprits: dict[bytes, None] = {}  # in the order they were found
        self._order = itertools.count()
        self._waiting: dict[Priority, list[tuple[float, int, _Entry[Item, Result]]]] = {
            priority: [] for priority in Priority
        }
        self._work = asyncio.Event()
        self._is_stopped = False

    async def submit(
        self,
        item: Item,
        *,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float = math.inf,
    ) -> Answer[Result]:
        """Wait for the result of one item. `deadline` is a time of the event loop's clock.

        Raises:
            DeadlinePassed: `deadline` came before the item's batch began.
            EngineUnavailable: `serve` has ended.
            Exception: whatever `run` raised for the batch this item was in.
        """
        if self._is_stopped:
            raise _stopping()
        loop = asyncio.get_running_loop()
        entry: _Entry[Item, Result] = _Entry(
            item, self._cost(item), deadline, loop.time(), loop.create_future()
        )
        heapq.heappush(self._waiting[priority], (deadline, next(self._order), entry))
        self._work.set()
        return await entry.reply

    def __len__(self) -> int:
        """How many items wait, those included whose callers have gone."""
        return sum(map(len, self._waiting.values()))

    async def serve(self) -> None:
        """Form batches and run them, until cancelled; what still waits then is told so."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._in_flight):
                    group.create_task(self._serve_one_at_a_time())
        finally:
            self._is_stopped = True
            waiting = (entry for heap in self._waiting.values() for _, _, entry in heap)
            _fail(waiting, _stopping())

    async def _serve_one_at_a_time(self) -> None:
        while True:
            await self._work.wait()
            if batch := self._next_batch():
                await self._answer(batch)

    def _next_batch(self) -> list[_Entry[Item, Result]]:
        """Take what fits into one call. Empty when all that waited had been abandoned."""
        batch: list[_Entry[Item, Result]] = []
        kept = self._limits.max_items // _BULK_SHARE if self._waiting[Priority.BULK] else 0
        self._fill(batch, Priority.INTERACTIVE, self._limits.max_items - kept)
        self._fill(batch, Priority.BULK, self._limits.max_items)
        if len(batch) < self._limits.max_items:  # bulk did not use what was kept for it
            self._fill(batch, Priority.INTERACTIVE, self._limits.max_items)
        if not len(self):
            self._work.clear()
        return batch

    def _fill(self, batch: list[_Entry[Item, Result]], priority: Priority, max_items: int) -> None:
        heap = self._waiting[priority]
        dearest = max((entry.cost for entry in batch), default=0.0)
        now = asyncio.get_running_loop().time()
        while heap and len(batch) < max_items:
            entry = heap[0][-1]
            if not self._is_wanted(entry, now):
                heapq.heappop(heap)
                continue
            dearest = max(dearest, entry.cost)
            if batch and dearest * (len(batch) + 1) > self._limits.max_cost:
                return
            if batch and (self._is_culprit(entry) or self._is_culprit(batch[0])):
                return
            batch.append(heapq.heappop(heap)[-1])

    def _is_wanted(self, entry: _Entry[Item, Result], now: float) -> bool:
        if entry.reply.done():
            return False
        if entry.deadline <= now:
            entry.reply.set_exception(DeadlinePassed("the deadline passed in the queue"))
            return False
        return True

    def _is_culprit(self, entry: _Entry[Item, Result]) -> bool:
        if not self._culprits:  # nearly always: no digest is made then
            return False
        entry.digest = entry.digest or self._digest(entry.item)
        return entry.digest in self._culprits

    async def _answer(self, batch: list[_Entry[Item, Result]]) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            last = max(entry.deadline for entry in batch)
            results = await self._run([entry.item for entry in batch], last - started)
            answers = list(zip(batch, results, strict=True))
        except asyncio.CancelledError:
            _fail(batch, _stopping())
            raise
        except EngineFailed as exc:
            await self._answer_apart(batch, exc)
            return
        except Exception as exc:  # whatever it is, it belongs to the callers, not to this loop
            _fail(batch, exc)
            return
        finished = loop.time()
        for entry, result in answers:
            if not entry.reply.done():
                answer = Answer(result, started - entry.submitted, finished - started)
                entry.reply.set_result(answer)

    async def _answer_apart(self, batch: list[_Entry[Item, Result]], failure: EngineFailed) -> None:
        """Run each item of a failed batch alone, unless it seems to be the engine's fault."""
        if len(batch) == 1:
            _fail(batch, failure)
            return
        failed: list[_Entry[Item, Result]] = []
        for number, entry in enumerate(batch):
            if len(failed) == number == _PATIENCE:
                _fail(batch, failure)
                return
            await self._answer([entry])
            if entry.reply.done() and not entry.reply.cancelled() and entry.reply.exception():
                failed.append(entry)
        for entry in failed:
            self._culprits[self._digest(entry.item)] = None
        while len(self._culprits) > _MAX_CULPRITS:
            del self._culprits[next(iter(self._culprits))]


def _fail(entries: Iterable[_Entry[Item, Result]], reason: Exception) -> None:
    for entry in entries:
        if not entry.reply.done():
            entry.reply.set_exception(reason)


def _stopping() -> EngineUnavailable:
    return EngineUnavailable("the server is stopping")
