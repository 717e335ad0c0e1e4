"""Health that follows the engine: SERVING only while its canary answers as the reference did."""

from __future__ import annotations

import asyncio
import logging
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

    @property
    def watchers(self) -> int:
        """Clients that hear at once what is said, and go elsewhere."""
        return self.servicer.watchers

    async def start(self) -> None:
        """NOT_SERVING, where the library would say SERVING from the start."""
        await self._say(False)

    async def watch(self) -> None:
        """Run every model's canary, again and again until cancelled."""
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
            try:
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
            if not canary.done() and not await model.engine.is_busy():
                raise TimeoutError
        await canary
    finally:
        canary.cancel()
