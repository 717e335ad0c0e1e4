"""Many small calls in, few large calls out."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

from diptych.contract import Priority
from diptych.errors import DeadlinePassed, EngineFailed, EngineUnavailable
from diptych.pace import Pace
from diptych.suspects import Suspects

Item = TypeVar("Item")
Result = TypeVar("Result")
# A batch, and the seconds after which none of its callers waits any more.
Run: TypeAlias = Callable[[list[Item], float], Awaitable[Iterable[Result]]]
Groups: TypeAlias = Callable[[list[Item]], list[list[int]]]

_BULK_SHARE = 8  # one place in so many is kept for bulk work
_PATIENCE = 3  # items that fail alone, one after another, before the engine itself is blamed


@dataclass(frozen=True, slots=True)
class Answer(Generic[Result]):
    result: Result
    queue_s: float  # from submission to the start of the batch
    engine_s: float  # the batch


@dataclass(slots=True)
class _Entry(Generic[Item, Result]):
    item: Item
    priority: Priority
    deadline: float  # of the event loop's clock
    order: int  # in which they came
    submitted: float = field(default_factory=time.monotonic)
    reply: asyncio.Future[Answer[Result]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    digest: bytes = b""  # made when first needed


class Batcher(Generic[Item, Result]):
    """Gathers items submitted by many tasks into few calls of `run`.

    Natural batching: an idle engine starts at once with what is there; while all `in_flight`
    calls are busy, work gathers. Nothing ever waits for company. Interactive work goes before
    bulk work, within each the nearest deadline first; one place in eight is kept for bulk work,
    so that it moves, and delays interactive work by no more than one batch. An item whose caller
    has gone or whose deadline has passed is dropped before the call, never computed. Where items
    of like size are cheaper together, the most urgent one's group goes first, and the rest wait
    for the next call, to be grouped anew with what has come meanwhile.

    When a batch fails, its items are run again one by one: the culprit gets the error, the others
    their results. A culprit is remembered by its `digest` and runs alone from then on, so that it
    cannot fail its neighbours again. When the engine dies under a batch, all of it are told to
    come again, and then run alone, one at a time, until one is found that it always dies of.

    What may wait is bounded before it comes here, by `admission.Admission`. Deadlines are times of
    the event loop's clock, which is the monotonic one; uvloop would tell it in whole milliseconds.
    """

    def __init__(
        self,
        run: Run[Item, Result],
        *,
        max_items: int,
        in_flight: int,
        digest: Callable[[Item], bytes],
        groups: Groups[Item] | None = None,
        call_items: float = 0.0,
    ) -> None:
        """A call has at most `max_items`, and costs what `call_items` more of them would.

        `groups` cuts items into the calls that are cheapest, as lists of their places.
        """
        self._run = run
        self._max_items = max_items
        self._in_flight = in_flight
        self._groups = groups
        self._digest = digest
        self._suspects = Suspects()
        self._alone = asyncio.Lock()  # who runs alone, so that a death has one suspect
        self._order = itertools.count()
        self._waiting: dict[Priority, list[tuple[float, int, _Entry[Item, Result]]]] = {
            priority: [] for priority in Priority
        }
        self._work = asyncio.Event()
        self._is_stopped = False
        self._passed = 0  # interactive items that were run before bulk work that waits
        self._usual = max_items  # interactive items of a batch, as the latest with any had
        self.pace = Pace(in_flight=in_flight, max_items=max_items, call_items=call_items)

    async def submit(
        self, item: Item, *, priority: Priority = Priority.INTERACTIVE, deadline: float = math.inf
    ) -> Answer[Result]:
        """Wait for the result of one item. `deadline` is a time of the event loop's clock.

        Raises:
            DeadlinePassed: `deadline` came before the item's batch began.
            EngineUnavailable: `serve` has ended.
            Exception: whatever `run` raised for the batch this item was in.
        """
        if self._is_stopped:
            raise _stopping()
        order = next(self._order)
        entry = _Entry[Item, Result](item, priority, deadline, order)
        self._wait_on([entry])
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
            batch = self._next_batch()
            if batch and self._is_suspect(batch[0]):
                await self._answer_suspect(batch[0])
            elif batch:
                await self._answer(batch)

    def _next_batch(self) -> list[_Entry[Item, Result]]:
        """Take what goes into one call. Empty when all that waited had been abandoned."""
        batch: list[_Entry[Item, Result]] = []
        places = self._max_items
        kept = self._places_kept()
        if kept >= self._usual:  # groups of others passed bulk by: now it has one of its own
            self._fill(batch, Priority.BULK, kept)
        self._fill(batch, Priority.INTERACTIVE, places if batch else places - kept)
        self._fill(batch, Priority.BULK, places)
        if len(batch) < places:  # bulk did not use what was kept for it
            self._fill(batch, Priority.INTERACTIVE, places)
        batch = self._in_time(self._first_group(batch))
        self._count_shares(batch)
        if not len(self):
            self._work.clear()
        return batch

    def _first_group(self, batch: list[_Entry[Item, Result]]) -> list[_Entry[Item, Result]]:
        """The group with the most urgent entry, which is the first; the others wait on."""
        if self._groups is None or len(batch) < 2:
            return batch
        groups = self._groups([entry.item for entry in batch])
        first = next(group for group in groups if 0 in group)
        self._wait_on(batch[place] for group in groups if group is not first for place in group)
        return [batch[place] for place in sorted(first)]

    def _in_time(self, batch: list[_Entry[Item, Result]]) -> list[_Entry[Item, Result]]:
        """What can be run together without being too late for one of them; the others wait on."""
        now = time.monotonic()
        begin, end = self.pace.in_time([entry.deadline for entry in batch], now)
        _fail(batch[:begin], DeadlinePassed("the deadline could not be met any more"))
        self._wait_on(batch[end:])
        return batch[begin:end]

    def _wait_on(self, entries: Iterable[_Entry[Item, Result]]) -> None:
        for entry in entries:
            heapq.heappush(self._waiting[entry.priority], (entry.deadline, entry.order, entry))

    def _places_kept(self) -> int:
        """For bulk work in the next batch. Where a batch is one item, every eighth is bulk."""
        if not self._waiting[Priority.BULK]:
            self._passed = self._max_items // _BULK_SHARE * (_BULK_SHARE - 1)
            return 0
        return self._passed // (_BULK_SHARE - 1)

    def _count_shares(self, batch: list[_Entry[Item, Result]]) -> None:
        bulk = sum(entry.priority is Priority.BULK for entry in batch)
        hurried = len(batch) - bulk
        self._usual = hurried or self._usual
        self._passed = max(self._passed - bulk * (_BULK_SHARE - 1), 0)
        if self._waiting[Priority.BULK]:
            self._passed = min(self._passed + hurried, self._max_items * (_BULK_SHARE - 1))

    def _fill(self, batch: list[_Entry[Item, Result]], priority: Priority, max_items: int) -> None:
        heap = self._waiting[priority]
        now = time.monotonic()
        while heap and len(batch) < max_items:
            entry = heap[0][-1]
            if not self._is_wanted(entry, now):
                heapq.heappop(heap)
                continue
            if batch and (self._is_suspect(entry) or self._is_suspect(batch[0])):
                return
            batch.append(heapq.heappop(heap)[-1])

    def _is_wanted(self, entry: _Entry[Item, Result], now: float) -> bool:
        if entry.reply.done():
            return False
        # Where others wait, nothing is begun that could not end in time.
        if entry.deadline <= now + (self.pace.expected_s(1) if len(self) > 1 else 0.0):
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
            if self._is_wanted(entry, time.monotonic()):
                await self._answer([entry])

    async def _answer(self, batch: list[_Entry[Item, Result]]) -> None:
        started = time.monotonic()
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
            self.pace.lost(time.monotonic())
            _fail(batch, exc)
            return
        except DeadlinePassed as exc:
            self.pace.stalled(started, time.monotonic())
            _fail(batch, exc)
            return
        except Exception as exc:  # whatever it is, it belongs to the callers, not to this loop
            _fail(batch, exc)
            return
        finished = time.monotonic()
        if len(batch) == 1 and self._is_suspect(batch[0]):
            self._suspects.answered(self._digest_of(batch[0]))
        else:
            self.pace.ran(started, finished, len(batch))
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
