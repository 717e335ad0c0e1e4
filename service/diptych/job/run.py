"""One worker: parts claimed, read ahead, embedded in batches, written as shards, in order.

    source -> batches -> load, decode, tokenize (threads) -> engine -> rows -> shard -> manifest

Each stage runs while the others do; between them waits no more than a few batches. What goes into
which batch and which shard depends on the source alone, never on time, on rejects or on what was
done before: so a job that was killed and resumed writes what it would have written at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

from diptych.contract import Tower, Vector
from diptych.errors import BadData, BadInput, DiptychError
from diptych.job.cutting import Batch, batches
from diptych.job.embedders import Embedder, Prepared
from diptych.job.files import Locks
from diptych.job.items import Content, Item, Unreadable, content_hash, load
from diptych.job.manifest import OwnManifest, Record, Todo
from diptych.job.plan import Job
from diptych.job.shards import Row, write_shard
from diptych.job.sources import Source

LISTING = "sources.jsonl"
LOCKS = "locks"

_AHEAD = 2  # batches being decoded, beyond those that keep the engine busy
_WRITES = 1  # shards or locks that wait behind the one being written
_WAIT_S = 0.2  # between looks at parts that other workers have


@dataclass(frozen=True, slots=True)
class Share:
    """Which parts are this worker's to try, and in which order."""

    machine: int = 0  # of ...
    machines: int = 1  # ... so many; each does the parts that fall to it
    worker: int = 0  # of ...
    workers: int = 1  # ... so many on this machine; each begins elsewhere, and goes on everywhere

    def parts(self, count: int) -> list[int]:
        own = list(range(self.machine, count, self.machines))
        begin = len(own) * self.worker // self.workers
        return own[begin:] + own[:begin]


@dataclass(frozen=True, slots=True)
class Finished:
    """Behind the last batch of a part: its lock can go."""

    part: int


# Told of every batch's inputs: how many have vectors, how many were rejected.
Tally: TypeAlias = Callable[[int, int], None]


class Worker:
    """Does parts of one job until none is left to do."""

    def __init__(
        self,
        destination: Path,
        job: Job,
        embedder: Embedder,
        locks: Locks,
        *,
        share: Share,
        threads: int,
        tally: Tally,
        skip_unreachable: bool = False,
    ) -> None:
        self._destination = destination
        self._job = job
        self._embedder = embedder
        self._locks = locks
        self._share = share
        self._threads = threads
        self._tally = tally
        self._skip_unreachable = skip_unreachable
        self._manifest = OwnManifest(destination, locks, share.machine)
        self._source = Source(destination / LISTING, job.wanted)
        self._rows: list[Row] = []  # of the shard being gathered
        self._writes: deque[asyncio.Future[None]] = deque()

    async def run(self, parts: Sequence[int] | None = None) -> None:
        """Return when these parts, or all of this machine's share, are done, whoever did it.

        Raises:
            BadData: the source cannot be read.
            BadJob: the destination cannot be written.
            EngineError: the engine is away, or wrong.
        """
        if parts is None:
            parts = self._share.parts(len(self._source))
        pending: deque[tuple[Batch, asyncio.Task[list[Row]]] | Finished] = deque()
        ahead = self._embedder.batches + _AHEAD
        self._rows = []
        with (
            ThreadPoolExecutor(self._threads, thread_name_prefix="decode") as pool,
            ThreadPoolExecutor(1, thread_name_prefix="read") as reader,
            ThreadPoolExecutor(1, thread_name_prefix="write") as writer,
        ):
            try:
                async for batch in self._claimed(parts, reader):
                    if isinstance(batch, Batch):
                        task = asyncio.create_task(self._embed(batch.items, pool))
                        pending.append((batch, task))
                    elif batch is not None:
                        pending.append(batch)
                    while pending and (batch is None or len(pending) >= ahead):
                        await self._collect(pending.popleft(), writer)
                while pending:
                    await self._collect(pending.popleft(), writer)
                await self._wait_for_writes(0)
            finally:
                tasks = [waiting[1] for waiting in pending if not isinstance(waiting, Finished)]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, *self._writes, return_exceptions=True)
                self._writes.clear()
                pool.shutdown(wait=False, cancel_futures=True)

    async def _claimed(
        self, wanted: Sequence[int], reader: Executor
    ) -> AsyncIterator[Batch | Finished | None]:
        """Batches of every part that is free and not done; None where all that are left are with
        other workers, to be asked for again."""
        parts = deque(wanted)
        while parts:
            for _ in range(len(parts)):
                part = parts.popleft()
                if not self._locks.take(part):
                    parts.append(part)
                    continue
                todo = self._manifest.todo(part)  # after the lock: nobody adds to it now
                if todo.is_nothing:
                    self._locks.free(part)
                    continue
                async for batch in _read_ahead(self._batches(part, todo), reader):
                    yield batch
                yield Finished(part)
            if parts:
                yield None
                await asyncio.sleep(_WAIT_S)

    def _batches(self, part: int, todo: Todo) -> Iterator[Batch]:
        wanted = self._job.wanted
        items = self._source.read(part, todo.first * wanted.shard_size)
        return batches(part, items, todo, wanted.shard_size, wanted.batch)

    async def _embed(self, items: list[Item], pool: Executor) -> list[Row]:
        loop = asyncio.get_running_loop()
        towers = self._job.wanted.towers
        prepare = partial(
            _prepare,
            embedder=self._embedder,
            towers=towers,
            skip_unreachable=self._skip_unreachable,
        )
        found = await asyncio.gather(*(loop.run_in_executor(pool, prepare, i) for i in items))
        for tower in towers:
            good = [one for one in found if not one.error]
            if not good:
                break
            answers = await self._embedder.run(tower, [one.prepared.pop(tower) for one in good])
            for one, answer in zip(good, answers, strict=True):
                if isinstance(answer, DiptychError):
                    one.error = _reason(answer)
                else:
                    one.vectors[tower] = answer
        return [_row(item, one) for item, one in zip(items, found, strict=True)]

    async def _collect(
        self, waiting: tuple[Batch, asyncio.Task[list[Row]]] | Finished, writer: Executor
    ) -> None:
        """Take the oldest batch's rows; have its shard written if it is the shard's last."""
        loop = asyncio.get_running_loop()
        if isinstance(waiting, Finished):  # free for others behind its last shard
            self._writes.append(loop.run_in_executor(writer, self._locks.free, waiting.part))
            return
        batch, task = waiting
        rows = await task
        rejected = sum(row.error is not None for row in rows)
        self._tally(len(rows) - rejected, rejected)
        self._rows += rows
        if batch.ends_shard:
            shard, self._rows = self._rows, []
            await self._wait_for_writes(_WRITES)
            self._writes.append(loop.run_in_executor(writer, self._write, batch, shard))

    async def _wait_for_writes(self, most: int) -> None:
        while len(self._writes) > most:
            await self._writes.popleft()

    def _write(self, batch: Batch, rows: list[Row]) -> None:
        key = batch.part, batch.shard
        files = write_shard(self._destination, self._job, key, rows)
        rejected = sum(row.error is not None for row in rows)
        record = Record(
            *key,
            is_last=batch.ends_part,
            ok=len(rows) - rejected,
            rejected=rejected,
            fingerprint=self._job.space.fingerprint,
            engine=self._embedder.description,
            files=tuple(files),
        )
        self._manifest.add(record)


async def _read_ahead(found: Iterator[Batch], reader: Executor) -> AsyncIterator[Batch]:
    """`found`, one batch ahead, on the thread of `reader`."""
    loop = asyncio.get_running_loop()
    coming = loop.run_in_executor(reader, next, found, None)
    while (batch := await coming) is not None:
        coming = loop.run_in_executor(reader, next, found, None)
        yield batch


@dataclass(slots=True)
class _Working:
    """One input on its way."""

    prepared: dict[Tower, Prepared]
    error: str = ""
    content_sha256: str | None = None
    text: str | None = None
    vectors: dict[Tower, Vector] = field(default_factory=dict)


def _prepare(
    item: Item, embedder: Embedder, towers: tuple[Tower, ...], skip_unreachable: bool
) -> _Working:
    """On a thread: read what is still to be read, hash it, make it ready for the engine."""
    if item.problem:
        return _Working({}, item.problem)
    try:
        contents = {tower: load(item.contents[tower], tower) for tower in towers}
    except Unreadable as error:
        return _Working({}, str(error))
    except BadData as error:
        if not skip_unreachable:
            raise
        return _Working({}, str(error))
    sha256 = content_hash(list(contents.values()))
    text = _text(contents.get(Tower.TEXT))
    try:
        ready = {tower: embedder.prepare(tower, content) for tower, content in contents.items()}
    except BadInput as error:
        return _Working({}, _reason(error), sha256, text)
    return _Working(ready, "", sha256, text)


def _row(item: Item, one: _Working) -> Row:
    vectors = {} if one.error else one.vectors
    return Row(item.id, vectors, one.error or None, one.content_sha256, item.metadata, one.text)


def _text(content: Content | None) -> str | None:
    return content if isinstance(content, str) else None


def _reason(error: DiptychError) -> str:
    if not isinstance(error, BadInput):
        return str(error)
    return "; ".join(f"{v.field.rpartition('.')[2]}: {v.problem}" for v in error.violations)
