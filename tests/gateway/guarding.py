"""A gateway that knows its callers, and counts what strangers cost it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio._server
import pytest

from diptych.admission import Admission
from diptych.decoding import Decoders
from diptych.gateway.server import gateway
from tests.http2 import Answer, call, request
from tests.serving import local

KEYS = {
    name: f"dpt_s3cret-{name}-0123456789abcdefghijklmnop"
    for name in ("all", "new", "narrow", "reflect", "old", "gone", "late", "slow", "bulk", "brief")
}


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def entry(name: str, *keys: str, rights: str = '"*"', more: str = "") -> str:
    listed = ", ".join(f"{{sha256: {sha256(KEYS[key])}}}" for key in keys)
    return f"  - {{name: {name}, keys: [{listed}], rights: [{rights}]{more}}}\n"


CALLERS = (
    "callers:\n"
    + entry("all", "all", "new")
    + entry("narrow", "narrow", rights="EmbeddingService/ListModels")
    + entry("reflect", "reflect", rights="ServerReflection")
    + entry("old", "old", more=", expires: 2020-01-01")
    + f"  - {{name: late, keys: [{{sha256: {sha256(KEYS['late'])}, "
    + "expires: 2020-01-01T00:00:00Z}], rights: ['*'], expires: 2090-01-01}\n"
    + entry("slow", "slow", more=", quota: {inputs: 4, inputs_per_s: 2}")
    + entry("bulk", "bulk", rights="EmbeddingService", more=", priority: bulk")
)
BRIEF = entry("brief", "brief", rights="EmbeddingService")


class Lines(logging.Handler):
    """Every log line of the process, as it would be written."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@dataclass
class Guarded:
    """A gateway that knows its callers, and what was spent in it."""

    address: str
    metrics_address: str
    file: Path
    look: asyncio.Event
    log: Lines
    spent: dict[str, int] = field(default_factory=lambda: {"admitted": 0, "decoded": 0})
    served: set[str] = field(default_factory=set)  # the methods registered

    async def metric(self, line: str) -> float:
        """The value of the one line that begins so."""
        url = f"http://{self.metrics_address}/metrics"
        text = (await asyncio.to_thread(urllib.request.urlopen, url)).read().decode()
        return next((float(x.split()[-1]) for x in text.splitlines() if x.startswith(line)), 0.0)

    async def rewrite(self, text: str, outcome: str = "served") -> None:
        """Replace the file of callers, and wait until it is taken up, or refused."""
        reloads = f'diptych_certificate_reloads_total{{outcome="{outcome}"}}'
        before = await self.metric(reloads)
        self.file.write_text(text)
        self.look.set()
        for _ in range(500):
            if await self.metric(reloads) > before:
                return
            await asyncio.sleep(0.01)
        pytest.fail(f"the file was not {outcome} in five seconds")

    async def call(self, path: str | bytes, *extra: tuple[bytes, bytes], body: bytes) -> Answer:
        name = path if isinstance(path, bytes) else path.encode()
        return await call(self.address, request(name, *extra), body)

    async def knock(self, path: str | bytes, *extra: tuple[bytes, bytes]) -> Answer:
        """Call without ever sending a message: an answer means that none was read."""
        name = path if isinstance(path, bytes) else path.encode()
        return await call(self.address, request(name, *extra))


@asynccontextmanager
async def guarding(folder: Path) -> AsyncIterator[Guarded]:
    """A gateway with `CALLERS`, every line it logs, and what it spends."""
    file, look, log = folder / "callers.yaml", asyncio.Event(), Lines()
    file.write_text(CALLERS)
    logging.getLogger().addHandler(log)
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.DEBUG)
    found = Guarded("", "", file, look, log)
    settings = local(api_keys=file, metrics_port=0, refresh_s=60, access_log=True)
    with pytest.MonkeyPatch.context() as patch:
        _count(patch, found)
        async with gateway(settings, look=look) as running:
            assert running.metrics_address
            found.address, found.metrics_address = running.address, running.metrics_address
            found.spent |= {"admitted": 0, "decoded": 0}
            yield found
    logging.getLogger().removeHandler(log)
    logging.getLogger().setLevel(level)


def _count(patch: pytest.MonkeyPatch, found: Guarded) -> None:
    """Count what the real parts are asked to do."""
    begin, run = Admission._begin, Decoders.run
    register = grpc.aio._server.Server.add_registered_method_handlers

    def counted_begin(self: Admission, inputs: int, size_bytes: int) -> None:
        found.spent["admitted"] += inputs
        begin(self, inputs, size_bytes)

    async def counted_run(self: Decoders, *given: Any, **named: Any) -> Any:
        found.spent["decoded"] += 1
        return await run(self, *given, **named)

    def registered(self: Any, service: str, handlers: dict[str, Any]) -> None:
        found.served |= {f"/{service}/{name}" for name in handlers}
        register(self, service, handlers)

    patch.setattr(Admission, "_begin", counted_begin)
    patch.setattr(Decoders, "run", counted_run)
    patch.setattr(grpc.aio._server.Server, "add_registered_method_handlers", registered)


def bearer(key: str) -> tuple[bytes, bytes]:
    return b"authorization", f"Bearer {key}".encode()


def plain(key: str) -> tuple[bytes, bytes]:
    return b"x-api-key", key.encode()


GOOD = KEYS["all"]
STRANGERS: dict[str, list[tuple[bytes, bytes]]] = {
    "nothing": [],
    "a wrong key": [bearer("dpt_wrong")],
    "a wrong plain key": [plain("dpt_wrong")],
    "an empty key": [bearer("")],
    "an empty header": [(b"authorization", b"")],
    "an empty plain key": [plain("")],
    "no scheme": [(b"authorization", GOOD.encode())],
    "another scheme": [(b"authorization", b"Basic " + GOOD.encode())],
    "the scheme alone": [(b"authorization", b"Bearer")],
    "two spaces": [bearer(" " + GOOD)],
    "a space behind": [bearer(GOOD + " ")],
    "a zero byte behind": [bearer(GOOD + "\0")],
    "capitals": [bearer(GOOD.upper())],
    "the beginning of a key": [bearer(GOOD[:-1])],
    "more than a key": [bearer(GOOD + "a")],
    "the hash of a key": [bearer(sha256(GOOD))],
    "a huge token": [bearer("A" * 7000)],
    "bytes that are no text": [(b"authorization", b"Bearer " + GOOD.encode() + b"\xff\xfe")],
    "letters beyond ASCII": [bearer(GOOD + "é")],
    "a binary header": [(b"authorization-bin", base64.b64encode(GOOD.encode()))],
    "the same key twice": [bearer(GOOD), bearer(GOOD)],
    "a right key and a wrong one": [bearer(GOOD), bearer("dpt_wrong")],
    "a wrong key and a right one": [bearer("dpt_wrong"), bearer(GOOD)],
    "a key in both headers": [bearer(GOOD), plain(GOOD)],
    "two keys in one header": [bearer(f"{GOOD}, Bearer {GOOD}")],
    "a scheme where none belongs": [plain("Bearer " + GOOD)],
    "an HTTP gateway's header": [(b"grpcgateway-authorization", b"Bearer " + GOOD.encode())],
    "a cookie": [(b"cookie", b"authorization=Bearer " + GOOD.encode())],
    "a key that was never given out": [bearer(KEYS["gone"])],
    "a caller that has expired": [bearer(KEYS["old"])],
    "a key that has expired": [plain(KEYS["late"])],
}
