"""A gateway for tests: real sockets, the shipped model, and the real engine or its faults."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych import repository
from diptych.client import AsyncClient
from diptych.engines.base import Engine
from diptych.gateway.opening import open_engine
from diptych.gateway.server import gateway
from diptych.metrics import Metrics
from diptych.repository import ModelFiles
from diptych.settings import Settings
from diptych.testing import FaultyEngine

REPOSITORY = Path(__file__).parents[1] / "model_repository"
SHAPES = repository.load(REPOSITORY, "shapes")


def local(**changes: Any) -> Settings:
    """Settings for a gateway on a free loopback port that stops quickly."""
    usual: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "drain_s": 5.0}
    return Settings(**{"repository": REPOSITORY, **usual, **changes})


@asynccontextmanager
async def served(**changes: Any) -> AsyncIterator[AsyncClient]:
    """A client of a running gateway."""
    async with gateway(local(**changes)) as running, AsyncClient(running.address) as client:
        yield client


@dataclass(frozen=True)
class Faulty:
    """A running gateway whose engine can be made to fail."""

    address: str
    engine: FaultyEngine

    def client(self, **how: Any) -> AsyncClient:
        """A client that tells what the server said first, unless told to try again."""
        return AsyncClient(self.address, **{"retries": False, **how})


@asynccontextmanager
async def faulty(*, canary_every_s: float = 30.0, **changes: Any) -> AsyncIterator[Faulty]:
    engines: list[FaultyEngine] = []

    async def engine_for(
        files: ModelFiles, settings: Settings, wait_s: float, metrics: Metrics
    ) -> Engine:
        engine = await open_engine(files, settings, wait_s, metrics)
        engines.append(FaultyEngine(engine, files.spec, canary_every_s=canary_every_s))
        return engines[0]

    async with gateway(local(**changes), engine_for) as running:
        engines[0].batches.clear()  # the warm-up's
        yield Faulty(running.address, engines[0])
