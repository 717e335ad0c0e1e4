"""What callers notice of a rolling restart: nothing, or this says what.

    python -m bench.rolling --rounds 10
    python -m bench.rolling --rounds 10 --tls

Two gateways, each a process, and the shipped clients (asyncio and threads) over both addresses:
texts, pictures, scores and streams without a pause. In each round both are restarted in turn as
Kubernetes does it: SIGTERM, wait for the end, start anew, wait until it serves. Prints what was
answered and what failed. Status 1 if any call failed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from diptych.client import PLAIN, AsyncClient, Client, Credentials

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "tests" / "pictures" / "red_circle.png"

_STREAMED = 20  # inputs of one stream
_STOP_S = 60.0


@dataclass
class Tally:
    """What came of every call."""

    answered: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    def lines(self) -> list[str]:
        slow = sorted(self.seconds)
        p99 = slow[int(len(slow) * 0.99)] if slow else 0.0
        answered = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.answered.items()))
        return [
            f"answered: {answered}",
            f"slowest: p99 {p99:.3f} s, worst {slow[-1] if slow else 0:.3f} s",
            f"failed: {sum(self.failed.values())}",
            *(f"  {count} x {why}" for why, count in self.failed.most_common()),
        ]


@dataclass
class Replica:
    """One gateway on a port it keeps, whichever process serves there."""

    port: int
    flags: Sequence[str]
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Until it serves.

        Raises:
            RuntimeError: it ended before that.
        """
        command = [sys.executable, "-m", "diptych", "serve", "--host", "127.0.0.1"]
        self.process = await asyncio.create_subprocess_exec(
            *(*command, "--port", str(self.port), *self.flags),
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            if line.startswith(b"listening on "):
                return
        raise RuntimeError(f"the gateway ended with {await self.process.wait()} before it served")

    async def stop(self) -> float:
        """SIGTERM, and wait: how long it took, in seconds.

        Raises:
            RuntimeError: it did not end as it should.
        """
        assert self.process is not None
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(self.process.communicate(), _STOP_S)
        if self.process.returncode:
            raise RuntimeError(f"the gateway ended with status {self.process.returncode}")
        return time.monotonic() - started


@asynccontextmanager
async def replicas(count: int, flags: Sequence[str]) -> AsyncIterator[list[Replica]]:
    """So many gateways that serve."""
    found = [Replica(port, flags) for port in _free_ports(count)]
    async with AsyncExitStack() as stack:
        for replica in found:
            stack.push_async_callback(_end, replica)
        await asyncio.gather(*(replica.start() for replica in found))
        yield found


def target(found: Sequence[Replica]) -> str:
    """The addresses of all, as a name would resolve to them."""
    return "ipv4:" + ",".join(f"127.0.0.1:{replica.port}" for replica in found)


@asynccontextmanager
async def under_load(address: str, credentials: Credentials, callers: int) -> AsyncIterator[Tally]:
    """Calls of every kind, from `callers` tasks and two threads, until the end of the `with`."""
    tally, ended = Tally(), threading.Event()
    async with AsyncClient(address, credentials=credentials) as client:
        kinds = itertools.cycle(_kinds(client).items())
        tasks = [
            asyncio.create_task(_call_again(*next(kinds), tally, ended)) for _ in range(callers)
        ]
        tasks += [
            asyncio.create_task(asyncio.to_thread(_threaded, address, credentials, tally, ended))
            for _ in range(2)
        ]
        try:
            yield tally
        finally:
            ended.set()
            await asyncio.gather(*tasks)


def _kinds(client: AsyncClient) -> dict[str, Callable[[int], Awaitable[object]]]:
    picture = PICTURE.read_bytes()

    async def stream(number: int) -> None:
        async def inputs() -> AsyncIterator[tuple[str, str]]:
            for index in range(_STREAMED):
                yield str(index), f"stream {number} input {index}"
                await asyncio.sleep(0.005)

        got = {result.id async for result in client.embed_stream(inputs(), timeout_s=30)}
        assert len(got) == _STREAMED, f"{len(got)} of {_STREAMED} results"

    return {
        "texts": lambda number: client.embed([f"text {number}", "again and again"]),
        "pictures": lambda number: client.embed([picture, f"beside {number}"]),
        "scores": lambda number: client.score([picture], [f"a {number}", "a circle"]),
        "streams": stream,
        "lists": lambda number: client.models(),
    }


async def _call_again(
    kind: str,
    call: Callable[[int], Awaitable[object]],
    tally: Tally,
    ended: threading.Event,
) -> None:
    for number in itertools.count():
        if ended.is_set():
            return
        started = time.monotonic()
        try:
            await call(number)
        except Exception as exc:  # whatever it is, it is what a caller would have got
            tally.failed[f"{kind}: {type(exc).__name__}: {exc}"[:200]] += 1
        else:
            tally.answered[kind] += 1
            tally.seconds.append(time.monotonic() - started)
        await asyncio.sleep(0.005)


def _threaded(address: str, credentials: Credentials, tally: Tally, ended: threading.Event) -> None:
    with Client(address, credentials=credentials) as client:
        for number in itertools.count():
            if ended.is_set():
                return
            try:
                client.embed([f"from a thread {number}"])
            except Exception as exc:
                tally.failed[f"threads: {type(exc).__name__}: {exc}"[:200]] += 1
            else:
                tally.answered["threads"] += 1
            time.sleep(0.005)


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()


async def _end(replica: Replica) -> None:
    if replica.process is not None and replica.process.returncode is None:
        replica.process.kill()
        await replica.process.communicate()


async def measure(
    rounds: int, callers: int, flags: Sequence[str], credentials: Credentials, pause_s: float = 1.0
) -> tuple[Tally, list[float]]:
    """The tally, and how long each gateway took to end.

    `pause_s`: between one that serves again and the next that stops; gRPC looks for those that
    were away once a second.
    """
    took: list[float] = []
    async with (
        replicas(2, flags) as found,
        under_load(target(found), credentials, callers) as tally,
    ):
        await asyncio.sleep(pause_s)
        for _ in range(rounds):
            for replica in found:
                took.append(await replica.stop())
                await replica.start()
                await asyncio.sleep(pause_s)
    return tally, took


def tls(folder: Path) -> tuple[list[str], Credentials]:
    """The flags of a gateway with a certificate of its own, and what its clients need."""
    import trustme  # of the extra [dev]

    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    certificate, key, ca = folder / "tls.crt", folder / "tls.key", folder / "ca.crt"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    ca.write_bytes(authority.cert_pem.bytes())
    flags = ["--tls-certificate", str(certificate), "--tls-key", str(key)]
    return flags, Credentials(ca=ca, server_name="localhost")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--callers", type=int, default=20)
    parser.add_argument("--tls", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        flags, credentials = tls(Path(name)) if options.tls else ([], PLAIN)
        tally, took = asyncio.run(measure(options.rounds, options.callers, flags, credentials))
    print(f"{len(took)} restarts, each drained in {min(took):.1f} to {max(took):.1f} s")
    print("\n".join(tally.lines()))
    sys.exit(1 if tally.failed else 0)


if __name__ == "__main__":
    main()
