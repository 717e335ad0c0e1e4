"""A job on Ray: Ray Data hands the parts out to a pool of actors, each of them one worker.

What it hands out are numbers of parts, never inputs: reading, batches and shards are the worker's
own, under the same locks and the same manifest as everywhere. A part that Ray hands out twice,
because an actor died or only seemed to, is therefore done once: whoever holds its lock goes on
behind the last shard that its manifest has. The only importer of ray.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diptych.errors import BadJob, DiptychError, EngineUnavailable
from diptych.job.launch import Running, Totals, open_worker, watching
from diptych.job.manifest import Manifest
from diptych.job.run import LISTING, Worker
from diptych.job.sources import Source
from diptych.settings import cores

_BLOCKS = 1000  # at most; what Ray hands out at once, and again after a death
_RESTARTS = 20  # of one actor, before the run ends with an error
_STORE_BYTES = 80 * 2**20  # Ray's shared memory on this machine: numbers of parts take none

Parts = dict[str, npt.NDArray[Any]]  # rows by column, as Ray Data has them


def run(running: Running, watch: Callable[[Totals], None]) -> None:
    """Run `running.share.workers` actors until every part is done, on the cluster that RAY_ADDRESS
    names or else on this machine; `watch` is called twice a second. A dead actor is replaced.

    Every node needs this package, and the destination, the source and the model repository under
    the same names; locks have to work between them, as over NFS.

    Raises:
        BadJob: why one of the actors could not go on; the others are stopped.
        EngineUnavailable: actors died again and again, or the cluster is away.
    """
    written = _Written(running.destination)
    parts = written.missing(len(Source(running.destination / LISTING, running.job.wanted)))
    with watching(written, watch):
        if parts:
            _run(running, parts)


def _run(running: Running, parts: list[int]) -> None:
    with warnings.catch_warnings():
        # Ray trips over its own deprecations.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        with _cluster(running.share.workers) as ray:
            try:
                for row in _handed_out(ray, running, parts).iter_rows():
                    if row["error"]:
                        raise BadJob(str(row["error"]))
            except ray.exceptions.RayError as error:
                reason = str(error).strip().splitlines()[-1]
                raise EngineUnavailable(f"Ray could not go on: {reason}") from error


def _handed_out(ray: Any, running: Running, parts: list[int]) -> Any:
    """What became of each part, as it is done."""
    workers, settings = running.share.workers, running.choice.settings
    share = ray.cluster_resources().get("CPU", 1.0) / workers
    threads = settings.threads or max(1, int(share))
    choice = replace(running.choice, settings=replace(settings, threads=threads))
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    items = [{"part": part} for part in parts]
    return ray.data.from_items(items, override_num_blocks=min(len(items), _BLOCKS)).map_batches(
        _Actor,
        fn_constructor_args=(replace(running, choice=choice), Path.cwd()),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=min(threads, share),
        max_restarts=_RESTARTS,
        max_task_retries=_RESTARTS,
    )


class _Actor:
    """One worker in a process of Ray's; does the parts that it is handed, one after the other."""

    def __init__(self, running: Running, folder: Path) -> None:
        os.chdir(folder)  # names in the source list may be relative
        self._running = running
        self._loop = asyncio.Runner()
        self._open = AsyncExitStack()  # until the process ends
        self._worker: Worker | None = None

    def __call__(self, parts: Parts) -> Parts:
        numbers = parts["part"].tolist()
        try:
            self._loop.run(self._do(numbers))
        except (DiptychError, OSError) as error:
            return {"error": np.array([str(error)])}
        return {"error": np.array([""])}

    async def _do(self, numbers: list[int]) -> None:
        if self._worker is None:
            opening = open_worker(self._running, lambda ok, rejected: None)
            self._worker = await self._open.enter_async_context(opening)
        await self._worker.run(numbers)


class _Written:
    """What the manifest has, and how much of it has come since this was made."""

    def __init__(self, destination: Path) -> None:
        self._manifest = Manifest(destination)
        self._before = self._counted()

    def missing(self, parts: int) -> list[int]:
        return [part for part in range(parts) if not self._manifest.todo(part).is_nothing]

    def totals(self) -> tuple[int, int]:
        ok, rejected = self._counted()
        return ok - self._before[0], rejected - self._before[1]

    def _counted(self) -> tuple[int, int]:
        records = self._manifest.read().values()
        return sum(r.ok for r in records), sum(r.rejected for r in records)


@contextmanager
def _cluster(workers: int) -> Iterator[Any]:
    """Ray, at work; what of it was started here is gone at the end, and its files."""
    is_far = "RAY_ADDRESS" in os.environ
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # tells nobody
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if not is_far:  # on macOS and Windows it listens on loopback only; so it shall here
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray
    import ray.data

    how: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with ExitStack() as stack:
        if not is_far:
            make = tempfile.TemporaryDirectory(prefix="diptych-ray-", ignore_cleanup_errors=True)
            how |= {
                "address": "local",
                "num_cpus": max(cores(), workers),
                "include_dashboard": False,
                "object_store_memory": _STORE_BYTES,
                "_temp_dir": stack.enter_context(make),
            }
        stack.callback(ray.shutdown)
        ray.init(**how)
        yield ray
