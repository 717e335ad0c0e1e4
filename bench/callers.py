"""Many callers at once who know what the answers must be."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.rpc import error_details_pb2, status_pb2

from diptych import repository, wire
from diptych.client import AsyncClient
from diptych.gateway.server import gateway
from diptych.settings import Settings
from diptych.v1 import embedding_pb2 as pb
from diptych.v1 import embedding_pb2_grpc as rpc
from diptych.wire import Input, Vectors

SAME = 0.99999  # cosine
HUNG_S = 5.0  # past the deadline
TEXTS, IMAGES = 400, 100  # distinct ones

_DETAILS = "grpc-status-details-bin"
_BEAT_S = 0.005
_FORMS = ["circle", "square", "triangle", "star"]
_COLOURS = ["red", "green", "blue", "yellow", "purple"]


@dataclass
class Tally:
    """What became of the calls."""

    ok: int = 0
    unavailable: int = 0
    deadline_exceeded: int = 0
    others: dict[str, int] = field(default_factory=Counter)  # by status
    wrong: int = 0  # vectors that are not the known ones
    without_retry_info: int = 0  # of those UNAVAILABLE
    hung: int = 0
    latest_s: float = -np.inf  # after its deadline, as the caller saw it
    latest_fair_s: float = -np.inf  # less what the caller's own event loop was late by


async def known_inputs(root: Path) -> list[tuple[Input, Vectors]]:
    """Texts and pixels, and their vectors by the embedded engine in float32."""
    numbers = np.random.default_rng(0)
    [name] = repository.names(root)
    size = repository.load(root, name).spec.image.size
    coarse = numbers.integers(0, 256, (IMAGES, 8, 8, 3), dtype=np.uint8)
    pixels = coarse.repeat(size // 8, axis=1).repeat(size // 8, axis=2)
    texts = [f"a {_COLOURS[i % 5]} {_FORMS[i % 4]} {i} {_FORMS[i // 7 % 4]}" for i in range(TEXTS)]
    inputs: list[Input] = [*texts, *pixels]
    exact = Settings(
        repository=root, precision="fp32", max_inputs=len(inputs), host="127.0.0.1", port=0
    )
    async with gateway(exact) as running, AsyncClient(running.address) as client:
        return list(zip(inputs, (await client.embed(inputs)).vectors, strict=True))


class Callers:
    """Callers of `Embed` with one to four inputs, one call after another.

    They use gRPC as it is: no retries, no notion of health. Told to try again later, they do.
    """

    def __init__(
        self,
        address: str,
        inputs: Sequence[tuple[Input, Vectors]],
        count: int,
        deadline_s: float,
        tally: Tally,
    ) -> None:
        self._address = address
        self._inputs = [(wire.to_input(item), vector) for item, vector in inputs]
        self._count = count
        self._deadline_s = deadline_s
        self._tally = tally
        self._answered = asyncio.Event()
        self._late: deque[tuple[float, float]] = deque(maxlen=1000)  # when, and by how much
        self._due = np.inf

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        """The calls of all within this; those open at the end are waited for."""
        options = [("grpc.enable_retries", 0)]
        async with grpc.aio.insecure_channel(self._address, options) as channel:
            stub: rpc.EmbeddingServiceAsyncStub = rpc.EmbeddingServiceStub(channel)
            stopping = asyncio.Event()
            beat = asyncio.create_task(self._beat())
            tasks = [
                asyncio.create_task(self._call_on(stub, stopping, random.Random(number)))
                for number in range(self._count)
            ]
            try:
                yield
            finally:
                stopping.set()
                await asyncio.gather(*tasks)
                beat.cancel()
                await asyncio.gather(beat, return_exceptions=True)

    async def next_answer(self) -> float:
        """Wait for a call to be answered OK; returns when it was."""
        self._answered.clear()
        await self._answered.wait()
        return time.monotonic()

    async def _beat(self) -> None:
        while True:
            self._due = time.monotonic() + _BEAT_S
            await asyncio.sleep(_BEAT_S)
            now = time.monotonic()
            self._late.append((now, now - self._due))

    def _own_lateness_s(self, since: float, now: float) -> float:
        """The most that this event loop was late by from `since` to `now`."""
        known = (late for when, late in self._late if when >= since)
        return max(0.0, now - self._due, *known)

    async def _call_on(self, stub: Any, stopping: asyncio.Event, dice: random.Random) -> None:
        pause_s = 0.0
        while not stopping.is_set():
            await asyncio.sleep(pause_s)
            pause_s = await self._call(stub, dice)

    async def _call(self, stub: Any, dice: random.Random) -> float:
        """One call; returns how long to wait before the next, in seconds."""
        chosen = dice.sample(self._inputs, dice.randint(1, 4))
        request = pb.EmbedRequest(inputs=[item for item, _ in chosen])
        started, pause_s = time.monotonic(), 0.0
        try:
            async with asyncio.timeout(self._deadline_s + HUNG_S):
                reply = await stub.Embed(request, timeout=self._deadline_s)
        except TimeoutError:
            self._tally.hung += 1
        except grpc.aio.AioRpcError as exc:
            pause_s = self._failed(exc)
        else:
            self._judge(reply, [vector for _, vector in chosen])
        self._clock(started)
        return pause_s * dice.uniform(1, 1.5)

    def _failed(self, exc: grpc.aio.AioRpcError) -> float:
        if exc.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            self._tally.deadline_exceeded += 1
        elif exc.code() is grpc.StatusCode.UNAVAILABLE:
            self._tally.unavailable += 1
            pause_s = _retry_after_s(exc)
            self._tally.without_retry_info += pause_s is None
            return pause_s or 0.0
        else:
            self._tally.others[exc.code().name] += 1
        return 0.0

    def _judge(self, reply: pb.EmbedResponse, expected: Sequence[Vectors]) -> None:
        results = wire.embed_reply(reply).results
        if all(isinstance(result, np.ndarray) for result in results):
            self._tally.ok += 1
            self._answered.set()
        for result, vector in zip(results, expected, strict=True):
            if not isinstance(result, np.ndarray):
                self._tally.others[type(result).__name__] += 1
            elif not float(result @ vector) >= SAME:
                self._tally.wrong += 1

    def _clock(self, started: float) -> None:
        ended = time.monotonic()
        late_s = ended - started - self._deadline_s
        self._tally.latest_s = max(self._tally.latest_s, late_s)
        if late_s > 0:
            late_s -= self._own_lateness_s(ended - late_s, ended)
        self._tally.latest_fair_s = max(self._tally.latest_fair_s, late_s)


def _retry_after_s(exc: grpc.aio.AioRpcError) -> float | None:
    for key, value in exc.trailing_metadata() or ():
        if key == _DETAILS and isinstance(value, bytes):
            for detail in status_pb2.Status.FromString(value).details:
                retry = error_details_pb2.RetryInfo()
                if detail.Unpack(retry):
                    return float(retry.retry_delay.ToMilliseconds()) / 1000
    return None
