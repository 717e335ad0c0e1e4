"""Many small calls in, few large calls out."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from diptych.contract import Priority
from diptych.errors import DeadlinePassed, EngineFailed, EngineUnavailable
from diptych.suspects import Suspects

Item = TypeVar("Item")
Result = TypeVar("Result")
# A batch, and the seconds after which none of its callers waits any more.
Run: TypeAlias = Callable[[list[Item], float], Awaitable[Iterable[Result]]]

_BULK_SHARE = 8  # one place in so many is kept for bulk work
_COLD_S = 5.0  # after the engine was away or silent nothing is learnt: it is slow at first
SLACK = 1.15  # of how long work is expected to take
_PATIENCE = 3  # items that fail alone, one after another, before the engine itself is blamed


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
    bulk work, within each the nearest deadline first; one place in eight is kept for bulk work,
    so that it moves, and delays interactive work by no more than one batch. An item whose caller
    has gone or whose deadline has passed is dropped before the call, never computed.

    When a batch fails, its items are run again one by one: the culprit gets the error, the others
    their results. A culprit is remembered by its `digest` and runs alone from then on, so that it
    cannot fail its neighbours again. When the engine dies under a batch, all of it are told to
    come again, and then run alone, one at a time, until one is found that it always dies of.

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
        call_items: float = 0.0,
    ) -> None:
        """`call_items`: what a call of `run` costs beside its items, in items."""
        self._run = run
        self._limits = limits
        self._in_flight = in_flight
        self._cost = cost
        self._call_items = call_items
        self._digest = digest
        self._suspects = Suspects()
        self._alone = asyncio.Lock()  # who runs alone, so that a death has one suspect
        self._order = itertools.count()
        self._waiting: dict[Priority, list[tuple[float, int, _Entry[Item, Result]]]] = {
            priority: [] for priority in Priority
        }
        self._work = asyncio.Event()
        self._is_stopped = False
        self._kept = 0.0  # places that bulk work has a right to
        self._finished = -math.inf  # the newest batch; of the event loop's clock
        # One more than can hang together: the best of them is the engine's own pace.
        self._paces: deque[float] = deque(maxlen=in_flight + 1)
        self._cold_until = -math.inf  # of the event loop's clock
        self.pace_s = 0.0  # for what one item adds to a batch, of late; 0: not known yet

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

    def expected_s(self, items: int) -> float:
        """How long so many items would take, at the pace of late; 0 while that is not known."""
        calls = math.ceil(items / self._limits.max_items)
        return self.pace_s * (items + self._call_items * calls)

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
            batch = self._next_batch()
            if batch and self._is_suspect(batch[0]):
                await self._answer_suspect(batch[0])
            elif batch:
                await self._answer(batch)

    def _next_batch(self) -> list[_Entry[Item, Result]]:
        """Take what fits into one call. Empty when all that waited had been abandoned."""
        batch: list[_Entry[Item, Result]] = []
        places = self._limits.max_items
        self._fill(batch, Priority.INTERACTIVE, places - self._places_kept())
        hurried = len(batch)
        self._fill(batch, Priority.BULK, places)
        self._kept -= len(batch) - hurried
        if len(batch) < places:  # bulk did not use what was kept for it
            self._fill(batch, Priority.INTERACTIVE, places)
        if not len(self):
            self._work.clear()
        return batch

    def _places_kept(self) -> int:
        """For bulk work in the next batch. Where a batch is one item, every eighth is bulk."""
        if not self._waiting[Priority.BULK]:
            self._kept = 0.0
            return 0
        places = self._limits.max_items
        self._kept = min(max(self._kept, 0.0) + places / _BULK_SHARE, places)
        return int(self._kept)

    def _fill(self, batch: list[_Entry[Item, Result]], priority: Priority, max_items: int) -> None:
        heap = self._waiting[priority]
        dearest = max((entry.cost for entry in batch), default=0.0)
        soonest = min((entry.deadline for entry in batch), default=math.inf)
        now = asyncio.get_running_loop().time()
        while heap and len(batch) < max_items:
            entry = heap[0][-1]
            if not self._is_wanted(entry, now):
                heapq.heappop(heap)
                continue
            dearest = max(dearest, entry.cost)
            if batch and dearest * (len(batch) + 1) > self._limits.max_cost:
                return
            soonest = min(soonest, entry.deadline)
            if batch and now + SLACK * self.expected_s(len(batch) + 1) > soonest:
                return  # a larger batch would end too late for one of its own
            if batch and (self._is_suspect(entry) or self._is_suspect(batch[0])):
                return
            batch.append(heapq.heappop(heap)[-1])

    def _is_wanted(self, entry: _Entry[Item, Result], now: float) -> bool:
        if entry.reply.done():
            return False
        # Where others wait, nothing is begun that could not end in time.
        if entry.deadline <= now + (self.expected_s(1) if len(self) > 1 else 0.0):
            entry.reply.set_exception(DeadlinePassed("the deadline passed in the queue"))
            return False
        if self._is_suspect(entry) and self._suspects.is_refused(self._digest_of(entry)):
            entry.reply.set_exception(EngineFailed("the engine dies of this input"))
            return False
        return True

    def _is_suspect(self, entry: _Entry[Item, Result]) -> bool:
        return bool(self._suspects) and self._digest_of(entry) in self._suspects

    def _digest_of(self, entry: _Entry[Item, Result]) -> bytes:
        entry.digest = entry.digest or self._digest(entry.item)
        return entry.digest

    async def _answer_suspect(self, entry: _Entry[Item, Result]) -> None:
        async with self._alone:
            # Another may have been found out meanwhile, with the same content.
            if self._is_wanted(entry, asyncio.get_running_loop().time()):
                await self._answer([entry])

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
        except EngineUnavailable as exc:
            if exc.midway:
                self._suspects.engine_died([self._digest_of(entry) for entry in batch])
            self._paces.clear()
            self.pace_s, self._cold_until = 0.0, loop.time() + _COLD_S
            _fail(batch, exc)
            return
        except DeadlinePassed as exc:
            if self._finished < started:  # it may be busy, but then others would have had answers
                self._cold_until = loop.time() + _COLD_S
            _fail(batch, exc)
            return
        except Exception as exc:  # whatever it is, it belongs to the callers, not to this loop
            _fail(batch, exc)
            return
        finished = loop.time()
        if len(batch) == 1 and self._is_suspect(batch[0]):
            self._suspects.answered(self._digest_of(batch[0]))
        else:
            self._keep_pace(started, finished, len(batch))
        for entry, result in answers:
            if not entry.reply.done():
                answer = Answer(result, started - entry.submitted, finished - started)
                entry.reply.set_result(answer)

    def _keep_pace(self, started: float, finished: float, items: int) -> None:
        pace_s = (finished - max(started, self._finished)) / (items + self._call_items)
        self._finished = finished
        if finished < self._cold_until:
            return
        self._paces.append(pace_s)
        if len(self._paces) == self._paces.maxlen:
            self.pace_s = min(self._paces)

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
            if _has_failed(entry):
                failed.append(entry)
        for entry in failed:
            self._suspects.failed(self._digest_of(entry))


def _has_failed(entry: _Entry[Item, Result]) -> bool:
    reply = entry.reply
    return reply.done() and not reply.cancelled() and isinstance(reply.exception(), EngineFailed)


def _fail(entries: Iterable[_Entry[Item, Result]], reason: Exception) -> None:
    for entry in entries:
        if not entry.reply.done():
            entry.reply.set_exception(reason)


def _stopping() -> EngineUnavailable:
    return EngineUnavailable("the server is stopping")
