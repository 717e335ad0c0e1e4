"""Health that follows the engine: SERVING only while its canary answers as the reference did."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

from grpc_health.v1 import health, health_pb2

from diptych.canary import prove
from diptych.errors import DeadlinePassed, EngineError, EngineFailed
from diptych.gateway.served import Catalog, Served
from diptych.metrics import Metrics

log = logging.getLogger(__name__)

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

_SHARE = 0.04  # of an engine's time that canaries may take; a large tower's take long
_TRUSTED_S = 10.0  # at most


class _Servicer(health.aio.HealthServicer):  # type: ignore[misc]
    """Knows how many listen."""

    watchers = 0

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        self.watchers += 1
        try:
            await super().Watch(request, context)
        finally:
            self.watchers -= 1


class Health:
    """Says the same for the server ("") and for each of its services."""

    def __init__(self, catalog: Catalog, services: Sequence[str], metrics: Metrics) -> None:
        self.servicer = _Servicer()
        self._catalog = catalog
        self._names = ("", *services)
        self._metrics = metrics
        self._is_well: bool | None = None
        self._trusted_until: dict[str, float] = {}  # of time.monotonic(), by fingerprint

    @property
    def watchers(self) -> int:
        """Clients that hear at once what is said, and go elsewhere."""
        return self.servicer.watchers

    async def start(self) -> None:
        """NOT_SERVING, where the library would say SERVING from the start."""
        await self._say(False)

    async def watch(self) -> None:
        """Ask after every engine, again and again until cancelled: by its model's canary, or
        without it where that would take too large a share of what the engine can do."""
        while True:
            await asyncio.sleep(min(model.engine.canary_every_s for model in self._catalog))
            await self._say(await self._ask())

    async def stop(self) -> None:
        """NOT_SERVING from now on."""
        self._metrics.canary.set(0)
        await self.servicer.enter_graceful_shutdown()

    async def proved(self) -> None:
        """Say SERVING: the models were proved when they were opened."""
        for model in self._catalog:
            self._checked(model, "right")
        await self._say(True)

    async def _ask(self) -> bool:
        for model in list(self._catalog):
            began = time.monotonic()
            try:
                if await self._is_trusted(model):
                    continue
                await _prove(model)
            except (TimeoutError, DeadlinePassed):
                return self._unwell(model, "slow", "its canary took too long")
            except EngineFailed as exc:
                return self._unwell(model, "wrong", str(exc))
            except EngineError as exc:
                return self._unwell(model, "away", str(exc))
            except Exception as exc:  # the watch must outlive whatever it is
                log.exception("the canary of %s", model.spec.name)
                return self._unwell(model, "away", repr(exc))
            self._checked(model, "right")
            taken_s = time.monotonic() - began
            trusted_s = min(taken_s / _SHARE, _TRUSTED_S)
            self._trusted_until[model.spec.fingerprint] = began + trusted_s
        return True

    async def _is_trusted(self, model: Served) -> bool:
        """Whether its last canary is right, and recent for what it cost, and nothing went wrong
        since. From here on it is trusted no longer where it is not now."""
        until = self._trusted_until.pop(model.spec.fingerprint, 0.0)
        if time.monotonic() >= until or not await model.engine.is_well():
            return False
        self._trusted_until[model.spec.fingerprint] = until
        return True

    def _checked(self, model: Served, outcome: str) -> None:
        name = model.spec.name
        self._metrics.canaries.labels(name, outcome).inc()
        self._metrics.engine_up.labels(name).set(outcome in ("right", "wrong"))

    def _unwell(self, model: Served, outcome: str, reason: str) -> bool:
        self._checked(model, outcome)
        if self._is_well:
            log.error("not serving: the engine of %s: %s", model.spec.name, reason)
        return False

    async def _say(self, is_well: bool) -> None:
        if is_well == self._is_well:
            return
        self._is_well = is_well
        self._metrics.canary.set(is_well)
        for name in self._names:
            await self.servicer.set(name, SERVING if is_well else NOT_SERVING)


async def _prove(model: Served) -> None:
    """Run the canary. While the engine is busy it takes its turn behind what was there before.

    Raises:
        TimeoutError: it took too long, and the engine is not only busy.
        DeadlinePassed, EngineError: as `prove`.
    """
    canary = asyncio.create_task(prove(model.engine, model.spec))
    try:
        while not canary.done():
            await asyncio.wait({canary}, timeout=model.engine.canary_timeout_s)
            if not canary.done() and not await model.engine.is_well():
                raise TimeoutError
        await canary
    finally:
        canary.cancel()
