"""A job's workers: one in this process, or several of their own, until nothing is left to do."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from multiprocessing import connection
from pathlib import Path
from typing import Any, Protocol

from diptych.errors import DiptychError, EngineUnavailable
from diptych.job.embedders import EngineChoice, embedder
from diptych.job.files import Locks
from diptych.job.plan import Job
from diptych.job.run import LOCKS, Share, Worker
from diptych.settings import cores

_REMOTE_THREADS = 16  # that wait for a network, not for a core

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Running:
    """What one worker is told."""

    destination: Path
    job: Job
    choice: EngineChoice
    share: Share
    skip_unreachable: bool = False  # rather than stop


class Totals(Protocol):
    """What a run has done so far. Implemented by `Counts`, and by the manifest's for Ray."""

    def totals(self) -> tuple[int, int]:
        """Inputs embedded, and inputs rejected, since the run began."""
        ...


class Counts:
    """How many inputs have been embedded and rejected in this run, by all workers."""

    def __init__(self, context: Any, workers: int) -> None:
        # Each writes its own two. Shared memory is a file, on a disk that may be full.
        several = workers > 1
        self._numbers = context.Array("q", 2 * workers, lock=False) if several else [0, 0]

    def tally(self, worker: int) -> Callable[[int, int], None]:
        def add(ok: int, rejected: int) -> None:
            self._numbers[2 * worker] += ok
            self._numbers[2 * worker + 1] += rejected

        return add

    def totals(self) -> tuple[int, int]:
        numbers = list(self._numbers)
        return sum(numbers[::2]), sum(numbers[1::2])


def run(running: Running, say: Say, watch: Callable[[Totals], None]) -> None:
    """Run `running.share.workers` workers until this machine's share is done; `watch` is called
    twice a second.

    A worker that dies is not replaced: the others take over what it had.

    Raises:
        DiptychError: why the only worker, or the last of several, could not go on.
    """
    context = multiprocessing.get_context("spawn")
    counts = Counts(context, running.share.workers)
    with watching(counts, watch):
        if running.share.workers == 1:
            _work(running, counts.tally(0))
        else:
            _run_several(running, counts, context, say)


@asynccontextmanager
async def open_worker(running: Running, tally: Callable[[int, int], None]) -> AsyncIterator[Worker]:
    """A worker with its engine, warm and proved.

    Raises:
        DiptychError: the engine cannot be opened.
    """
    choice, job = running.choice, running.job
    threads = choice.settings.decoders or max(1, cores() // running.share.workers)
    if "://" in job.source:
        threads = max(threads, _REMOTE_THREADS)
    with Locks(running.destination / LOCKS) as locks:
        async with embedder(choice, job.wanted) as opened:
            yield Worker(
                running.destination,
                job,
                opened,
                locks,
                share=running.share,
                threads=threads,
                tally=tally,
                skip_unreachable=running.skip_unreachable,
            )


def _work(running: Running, tally: Callable[[int, int], None]) -> None:
    asyncio.run(_work_async(running, tally))


async def _work_async(running: Running, tally: Callable[[int, int], None]) -> None:
    async with open_worker(running, tally) as worker:
        await worker.run()


def _run_several(running: Running, counts: Counts, context: Any, say: Say) -> None:
    workers = running.share.workers
    threads = running.choice.settings.threads or max(1, cores() // workers)
    settings = replace(running.choice.settings, threads=threads)
    running = replace(running, choice=replace(running.choice, settings=settings))
    processes, reports = [], []
    for number in range(workers):
        mine = replace(running, share=replace(running.share, worker=number))
        hear, tell = context.Pipe(duplex=False)
        process = context.Process(
            target=_process, args=(mine, counts, tell), name=f"diptych-job-{number}"
        )
        process.start()
        tell.close()
        processes.append(process)
        reports.append(hear)
    try:
        failure = _await_all(processes, reports, say)
    finally:
        for process in processes:
            process.kill()
            process.join()
    if failure is not None:
        raise failure


def _await_all(processes: list[Any], reports: list[Any], say: Say) -> DiptychError | None:
    """The last worker's failure, if no worker came to the end of the work."""
    failure: DiptychError | None = None
    is_done = False
    alive = {process.sentinel: number for number, process in enumerate(processes)}
    while alive:
        for sentinel in connection.wait(list(alive)):
            number = alive.pop(sentinel)
            processes[number].join()
            status = processes[number].exitcode
            if status == 0:
                is_done = True
                continue
            failure = _reported(reports[number]) or EngineUnavailable(
                f"worker {number} ended with status {status}"
            )
            rest = "the others go on with its work" if alive else "none is left"
            say(f"worker {number}: {failure}; {rest}")
    return None if is_done else failure


def _reported(report: Any) -> DiptychError | None:
    try:
        return report.recv() if report.poll() else None
    except EOFError:
        return None


def _process(running: Running, counts: Counts, tell: Any) -> None:
    """The main of a worker process."""
    _end_with_parent()
    try:
        _work(running, counts.tally(running.share.worker))
    except DiptychError as error:
        tell.send(type(error)(str(error)))
        os._exit(1)
    except KeyboardInterrupt:
        os._exit(130)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def watching(counts: Totals, watch: Callable[[Totals], None]) -> Iterator[None]:
    """`watch` called twice a second, on a thread, within this; and once at the end."""
    ended = threading.Event()

    def keep_watching() -> None:
        while not ended.wait(0.5):
            watch(counts)

    thread = threading.Thread(target=keep_watching, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        watch(counts)
