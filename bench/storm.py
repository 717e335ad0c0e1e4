"""What callers meet while the tritonserver behind a gateway is killed, again and again.

    python -m bench.storm --times 10 --injury server

Three programs of ours as a user runs them, `diptych triton`, `diptych serve`, and the callers
here; only the vectors are known beforehand, from the embedded engine. `--injury` is what happens:
`server` and `stub` are kill -9 of the one or the other, `stop` is SIGSTOP for five seconds; of
several each has its turn.
Prints what became of the calls, and how fast the gateway knew. Status 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import glob
import itertools
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.callers import Callers, Tally, known_inputs
from diptych import repository
from diptych_export import triton_config
from diptych_export.triton_config import Placement

CALM_S, STOP_S = 2.0, 5.0  # between a return and the next injury; from SIGSTOP to SIGCONT
NOTICED_S, BACK_S = 2.0, 5.0  # the promises


@dataclass
class Storm:
    """What was seen, in seconds; one number per injury where there are several."""

    injuries: list[str]
    calls: Tally = field(default_factory=Tally)
    health_fell_s: list[float] = field(default_factory=list)  # after the injury
    first_answer_s: list[float] = field(default_factory=list)  # after the return
    health_rose_s: list[float] = field(default_factory=list)  # after the return
    births: int = 0  # of tritonservers, the first included
    left_processes: int = 0
    left_regions: int = 0  # in /dev/shm

    def broken(self, late_s: float) -> list[str]:
        """The promises that were not kept, in words."""
        calls = self.calls
        kept = {
            "no wrong vector": not calls.wrong,
            "no other status": not calls.others,
            "RetryInfo with every UNAVAILABLE": not calls.without_retry_info,
            "no hung call": not calls.hung,
            "no call later than its deadline": calls.latest_fair_s <= late_s,
            "health falls in time": all(0 < fell_s <= NOTICED_S for fell_s in self.health_fell_s),
            "an answer soon after the return": max(self.first_answer_s) <= BACK_S,
            "health rises in time": max(self.health_rose_s) <= BACK_S,
            "nothing left behind": not self.left_processes + self.left_regions,
        }
        return [promise for promise, is_kept in kept.items() if not is_kept]


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument(
        "--injury", nargs="+", choices=["server", "stub", "stop"], default=["server"]
    )
    reader.add_argument("--repository", type=Path, default=Path("model_repository"))
    reader.add_argument("--times", type=int, default=10, help="injuries, one after another")
    reader.add_argument("--callers", type=int, default=100, help="each with one call open")
    reader.add_argument("--deadline", type=float, default=2.0, help="of each call, in seconds")
    reader.add_argument("--late", type=float, default=0.05, help="seconds a call may be late")
    reader.add_argument("--json", action="store_true", help="one JSON object")
    options = reader.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        storm = asyncio.run(weathered(Path(folder), options))
    found = {**asdict(storm), "broken": storm.broken(options.late)}
    if options.json:
        print(json.dumps(found))
    else:
        show(storm, found["broken"])
    sys.exit(bool(found["broken"]))


async def weathered(folder: Path, options: argparse.Namespace) -> Storm:
    exact(options.repository, folder / "repository")
    inputs = await known_inputs(folder / "repository")
    injuries = itertools.islice(itertools.cycle(options.injury), options.times)
    storm = Storm(list(injuries))
    async with AsyncExitStack() as stack:
        triton = await stack.enter_async_context(Triton(folder).running())
        address = await stack.enter_async_context(gateway(folder, triton.address))
        callers = Callers(address, inputs, options.callers, options.deadline, storm.calls)
        health = Health(address)
        await stack.enter_async_context(health.watching())
        await stack.enter_async_context(callers.calling())
        for number, injury in enumerate(storm.injuries):
            await asyncio.sleep(CALM_S)
            await one(number, injury, storm, triton, callers, health)
    storm.births = triton.births
    storm.left_processes += len(members(triton.pid))
    storm.left_regions = len(glob.glob(f"/dev/shm/diptych-{triton.parent}-*"))
    return storm


def exact(root: Path, copy: Path) -> None:
    """A copy of the model, told to compute in float32 on every CPU."""
    [name] = repository.names(root)
    spec = repository.load(root, name).spec
    for folder in spec.folders.values():
        shutil.copytree(root / folder, copy / folder)
    triton_config.write(copy, spec, Placement(precision="fp32"), {})


async def one(
    number: int, injury: str, storm: Storm, triton: Triton, callers: Callers, health: Health
) -> None:
    """One injury, and the return."""
    while not members(triton.pid):  # the last injury killed it late
        await triton.born(triton.births + 1)
    group, births, injured = triton.pid, triton.births, time.monotonic()
    if injury == "stop":
        os.killpg(group, signal.SIGSTOP)
        await asyncio.sleep(STOP_S)
        os.killpg(group, signal.SIGCONT)
    else:
        stubs = [pid for pid in members(group) if pid != group]
        victim = group if injury == "server" else stubs[number % len(stubs)]
        os.kill(victim, signal.SIGKILL)
        await triton.born(births + 1)
        storm.left_processes += len(members(group))
    returned, answered = time.monotonic(), await callers.next_answer()
    await health.until(health_pb2.HealthCheckResponse.SERVING)
    if triton.born_at < answered:  # not all come through a stop alive
        returned = max(returned, triton.born_at)
    storm.first_answer_s.append(answered - returned)
    storm.health_rose_s.append(max(0.0, health.since - returned))
    storm.health_fell_s.append(health.fell - injured)


class Program:
    """One of our command lines, as a process."""

    @asynccontextmanager
    async def started(self, *args: str) -> AsyncIterator[None]:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "diptych", *args), stdout=asyncio.subprocess.PIPE
        )
        self.parent = self._process.pid
        try:
            yield
        finally:
            self._process.terminate()
            await asyncio.wait_for(self._process.wait(), 30)

    async def lines_until(self, beginning: str | None = None) -> AsyncIterator[str]:
        """What it prints, until a line that begins so, or its end."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            yield line.decode().rstrip()
            if beginning and line.decode().startswith(beginning):
                return


class Triton(Program):
    """`diptych triton`, which starts a new tritonserver when one dies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._changed = asyncio.Condition()
        self.pid = 0  # of the tritonserver, and of its group
        self.address = ""
        self.births = 0
        self.born_at = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Triton]:
        place = ["--repository", str(self._folder / "repository")]
        async with self.started("triton", *place, "--log", str(self._folder / "log")):
            reading = asyncio.create_task(self._read())
            await self.born(1)
            yield self
        await reading

    async def born(self, number: int) -> None:
        """Wait until that many tritonservers have become ready."""
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(lambda: self.births >= number), 60)

    async def _read(self) -> None:
        async for line in self.lines_until():
            print(line, file=sys.stderr)
            words = line.split()
            if "(gRPC)," in words:
                async with self._changed:
                    self.pid, self.address = int(words[1]), words[3]
                    self.births, self.born_at = self.births + 1, time.monotonic()
                    self._changed.notify_all()


@asynccontextmanager
async def gateway(folder: Path, triton: str) -> AsyncIterator[str]:
    """Its address. It keeps no results: each call needs Triton."""
    program = Program()
    async with program.started(
        *("serve", "--repository", str(folder / "repository"), "--engine", f"triton://{triton}"),
        *("--host", "127.0.0.1", "--port", "0"),
        *("--text-cache-bytes", "0", "--image-cache-bytes", "0"),
    ):
        said = [line async for line in program.lines_until("listening on ")]
        yield said[-1].split()[-1]


class Health:
    """What the gateway says of itself, as it says it."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._changed = asyncio.Condition()
        self._status = 0
        self.since = self.fell = 0.0  # the latter: when it was last said to be NOT_SERVING

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until(self, status: int) -> None:
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(lambda: self._status == status), 30)

    async def _watch(self) -> None:
        async with grpc.aio.insecure_channel(self._address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            async for reply in watch:
                async with self._changed:
                    self._status, self.since = reply.status, time.monotonic()
                    if reply.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                        self.fell = self.since
                    self._changed.notify_all()


def members(group: int) -> list[int]:
    """Living processes of a group."""
    found = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getpgid(process.pid) == group and process.info["status"] != "zombie":
                found.append(process.pid)
        except ProcessLookupError:
            continue
    return found


def show(storm: Storm, broken: list[str]) -> None:
    calls = storm.calls
    total = calls.ok + calls.unavailable + calls.deadline_exceeded + sum(calls.others.values())
    lines = {
        "calls": total + calls.hung,
        "OK": calls.ok,
        "UNAVAILABLE with RetryInfo": calls.unavailable - calls.without_retry_info,
        "UNAVAILABLE without": calls.without_retry_info,
        "DEADLINE_EXCEEDED": calls.deadline_exceeded,
        "other statuses": dict(calls.others) or 0,
        "wrong vectors": calls.wrong,
        "hung": calls.hung,
        "latest end after its deadline": f"{calls.latest_s * 1e3:.0f} ms",
        "  less the caller's own lateness": f"{calls.latest_fair_s * 1e3:.0f} ms",
        "NOT_SERVING after the injury": _seconds(storm.health_fell_s),
        "first answer after the return": _seconds(storm.first_answer_s),
        "SERVING after the return": _seconds(storm.health_rose_s),
        "tritonservers started": storm.births,
        "processes and shared memory left": storm.left_processes + storm.left_regions,
        "promises broken": ", ".join(broken) or "none",
    }
    print(f"injuries: {', '.join(storm.injuries)}")
    for name, value in lines.items():
        print(f"  {name:<34}{value}")


def _seconds(values: list[float]) -> str:
    return f"{max(values):.2f} s at most ({', '.join(f'{value:.2f}' for value in values)})"


if __name__ == "__main__":
    main()
