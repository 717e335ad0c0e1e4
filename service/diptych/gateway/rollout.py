"""A new version in the model repository: served without a restart, or not at all."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from pathlib import Path

from diptych import repository
from diptych.errors import BadRepository, DiptychError, EngineUnavailable
from diptych.gateway.opening import Opener
from diptych.gateway.policing import Policing
from diptych.gateway.served import Catalog, Served
from diptych.gateway.watching import look_again
from diptych.metrics import Metrics

_FIRST_WAIT_S = 60.0  # for an engine that starts together with this gateway
_NEXT_WAIT_S = 1.0  # for a version it may not have yet; the next look comes soon

log = logging.getLogger(__name__)


class Rollout:
    """Serves the newest version of each model that both towers have.

    A version that appears is opened beside the one served, proved by its canary, and put in its
    place at once for both towers. The old one closes when its last call has ended. A version that
    cannot be opened is reported and left alone, and so is one to which a policy in use would be
    lost. The way back is the old version under a new number, or, where nothing else serves from
    the repository, removing the newest one.

    Policies that change are taken up by the same watch, so that the two never cross.
    """

    def __init__(
        self,
        root: Path,
        opener: Opener,
        catalog: Catalog,
        policing: Policing,
        metrics: Metrics,
    ) -> None:
        self._root = root
        self._opener = opener
        self._catalog = catalog
        self._policing = policing
        self._metrics = metrics
        self._open: dict[str, tuple[Served, AsyncExitStack]] = {}
        self._refused: set[tuple[str, int]] = set()  # versions reported as not to be opened
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self, names: list[str]) -> None:
        """Open the newest version of each model, the default one first.

        Raises:
            DiptychError: one of them cannot be served.
        """
        await self._policing.start()
        for name in names:
            await self._switch(name, _FIRST_WAIT_S)
        self._policing.check(self._catalog)

    async def watch(self, every_s: float, now: asyncio.Event) -> None:
        """Look for other policies and new versions until cancelled; at once when `now` is set."""
        await look_again(every_s, now, self._look)

    async def stop(self) -> None:
        """Close everything that is open, finished or not."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        for _, stack in self._open.values():
            await stack.aclose()

    async def _look(self) -> None:
        if await self._policing.refresh(self._catalog):
            self._refused.clear()  # a version may have been refused for want of a policy
        for name in self._open:
            await self._refresh(name)

    async def _refresh(self, name: str) -> None:
        try:
            present = await asyncio.to_thread(repository.versions, self._root, name)
        except OSError:  # in the middle of being moved
            return
        self._refused = {r for r in self._refused if r[0] != name or r[1] in present}
        served = self._open[name][0].spec.version
        if not present or present[0] == served or (name, present[0]) in self._refused:
            return
        try:
            await self._switch(name, _NEXT_WAIT_S)
        except EngineUnavailable:
            log.info("%s version %d: the engine does not have it yet", name, present[0])
        except Exception as exc:  # whatever is wrong with it, the version served stays
            self._refused.add((name, present[0]))
            self._metrics.rollouts.labels("refused").inc()
            reason = exc if isinstance(exc, DiptychError) else repr(exc)
            log.error("%s version %d is not served: %s", name, present[0], reason)

    async def _switch(self, name: str, wait_s: float) -> None:
        files = await asyncio.to_thread(repository.load, self._root, name)
        old = self._open.get(name)
        async with AsyncExitStack() as opening:
            model = await opening.enter_async_context(self._opener.open(files, wait_s=wait_s))
            if old is not None and (lost := old[0].policies.keys() - model.policies.keys()):
                raise BadRepository(
                    f"policy {min(lost)!r} was calibrated on another space: add a file of that "
                    f"name for {files.spec.fingerprint}, beside the one in use"
                )
            stack = opening.pop_all()
        self._open[name] = model, stack
        self._catalog.put(model)
        if old is not None:
            self._metrics.rollouts.labels("served").inc()
            log.info("%s: version %d in place of %d", name, files.spec.version, old[0].spec.version)
            closing = asyncio.create_task(_close(*old))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


async def _close(model: Served, stack: AsyncExitStack) -> None:
    try:
        await model.unused()
    finally:
        await stack.aclose()


def served_names(root: Path, named: tuple[str, ...]) -> list[str]:
    """The models to serve, the default one first.

    Raises:
        BadRepository: there is none, or several and none is named.
    """
    names = list(named) or repository.names(root)
    if not names:
        raise BadRepository(f"{root}: holds no model")
    if len(names) > 1 and not named:
        raise BadRepository(f"{root}: holds {', '.join(names)}: name the default one with --model")
    return names
