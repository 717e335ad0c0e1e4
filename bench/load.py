"""A caller, in a process of its own, that leaves the cores to the server beside it.

    python -m bench.load --address HOST:PORT --case image --concurrency 32 --seconds 5

Closed loop: so many callers, each with one call open at a time. Open loop (`--rate`): calls
begin at random times, as many a second on average, whether or not earlier ones have ended.
Prints one JSON object. Requests are serialized beforehand; an error of one input counts as one of
its call.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import uvloop

from bench.http2 import Connection
from bench.traffic import CASES, requests
from diptych.v1 import embedding_pb2 as pb

_CONNECTIONS = 4
_LEAST_ENDS = 8  # fewer say little of a pace
_PREPARED = 200  # requests drawn before the clock starts


@dataclass(slots=True)
class Seen:
    """What came of the calls that began in the time measured."""

    latencies: list[float] = field(default_factory=list)  # of answers, in seconds
    refusals: list[float] = field(default_factory=list)  # of RESOURCE_EXHAUSTED, in seconds
    beside: list[float] = field(default_factory=list)  # latency less decoding and engine
    codes: Counter[str] = field(default_factory=Counter)
    ends: list[float] = field(default_factory=list)  # of answers within the time measured

    def add(self, code: str, seconds: float, computed_s: float) -> None:
        """A call, and what its reply says of decoding and the engine, in seconds."""
        self.codes[code] += 1
        if code == "OK":
            self.latencies.append(seconds)
            self.beside.append(seconds - computed_s)
        if code == "RESOURCE_EXHAUSTED":
            self.refusals.append(seconds)

    def summary(self, inputs: int, seconds: float) -> dict[str, Any]:
        """Of calls with `inputs` inputs each, over `seconds` measured."""
        errors = sum(self.codes.values()) - self.codes["OK"]
        return {
            "items_per_s": inputs * _pace(self.ends, seconds),
            **{f"p{share}_ms": _percentile(self.latencies, share) for share in (50, 95, 99)},
            "beside_p50_ms": _percentile(self.beside, 50),
            "refused_p99_ms": _percentile(self.refusals, 99),
            "errors": errors,
            "codes": dict(self.codes),
        }


def _pace(ends: Sequence[float], seconds: float) -> float:
    """Ends per second: the slope of their count over time, by least squares.

    Batches end in bursts. A count divided by the time would be off by up to a burst, the slope
    through a regular staircase is exact.
    """
    if len(set(ends)) < _LEAST_ENDS:
        return len(ends) / seconds
    slope, _ = np.polyfit(np.sort(ends), np.arange(len(ends)), 1)
    return float(slope)


def _percentile(seconds: list[float], share: int) -> float | None:
    return float(np.percentile(seconds, share)) * 1000 if seconds else None


def main() -> None:
    reader = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    reader.add_argument("--address", required=True)
    reader.add_argument("--case", required=True, choices=CASES)
    reader.add_argument("--side", type=int, default=224, help="pixels a side of ready pixels")
    reader.add_argument("--concurrency", type=int, default=32)
    reader.add_argument("--rate", type=float, default=0.0, help="calls a second; 0: closed loop")
    reader.add_argument("--deadline", type=float, default=0.0, help="of each call, in seconds")
    reader.add_argument("--seconds", type=float, default=5.0)
    reader.add_argument("--warmup", type=float, default=1.0)
    reader.add_argument("--calls", type=int, default=0, help="so many, in place of --seconds")
    options = reader.parse_args()
    print(json.dumps(uvloop.run(_run(options))))


async def _run(options: argparse.Namespace) -> dict[str, Any]:
    async with _caller(options) as caller:
        began = time.perf_counter()
        if options.rate:
            await caller.open_loop(options.rate)
        else:
            await caller.closed_loop(options.concurrency)
        seconds = time.perf_counter() - began if options.calls else options.seconds
        return caller.seen.summary(CASES[options.case].inputs, seconds)


@asynccontextmanager
async def _caller(options: argparse.Namespace) -> AsyncIterator[_Caller]:
    case = CASES[options.case]
    bodies = requests(case, options.side)
    for _ in range(_PREPARED):  # whatever is made once
        next(bodies)
    gc.collect()
    gc.freeze()  # or now and then a full collection would make an answer 60 ms late
    opening = [
        Connection.open(options.address, case.method, options.deadline or None)
        for _ in range(_CONNECTIONS)
    ]
    connections = await asyncio.gather(*opening)
    try:
        yield _Caller(options, connections, bodies)
    finally:
        for connection in connections:
            connection.close()


class _Caller:
    def __init__(
        self,
        options: argparse.Namespace,
        connections: Sequence[Connection],
        bodies: Iterator[bytes],
    ) -> None:
        self._case = CASES[options.case]
        self._connections = connections
        self._bodies = bodies
        score = self._case.method.endswith("Score")
        self._reply = pb.ScoreResponse if score else pb.EmbedResponse
        self._left = options.calls or math.inf
        self._begin = time.perf_counter() + (0.0 if options.calls else options.warmup)
        self._end = math.inf if options.calls else self._begin + options.seconds
        self.seen = Seen()

    async def closed_loop(self, concurrency: int) -> None:
        await asyncio.gather(*(self._call_on(number) for number in range(concurrency)))

    async def open_loop(self, rate: float) -> None:
        """Arrivals are a Poisson process: the times between them are exponential."""
        rng, due = Random(3), time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                due += rng.expovariate(rate)
                await asyncio.sleep(due - time.perf_counter())
                if due >= self._end:
                    return
                group.create_task(self._call(number))

    async def _call_on(self, number: int) -> None:
        while time.perf_counter() < self._end and self._left > 0:
            self._left -= 1
            await self._call(number)

    async def _call(self, number: int) -> None:
        connection, began = self._connections[number % len(self._connections)], time.perf_counter()
        code, message = await connection.call(next(self._bodies))
        computed_s = 0.0
        if code == "OK":
            reply = self._reply.FromString(message)
            if any(result.HasField("error") for result in reply.results):
                code = "INPUT_ERROR"
            computed_s = (reply.timings.decode_us + reply.timings.engine_us) / 1e6
        ended = time.perf_counter()
        if code == "OK" and self._begin <= ended < self._end:
            self.seen.ends.append(ended)
        if self._begin <= began < self._end:
            self.seen.add(code, ended - began, computed_s)


if __name__ == "__main__":
    main()
