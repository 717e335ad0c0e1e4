"""A real tritonserver as a child of this process: started, watched, and gone without a trace."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc

from diptych.engines.triton_install import Installed
from diptych.errors import EngineUnavailable

HOST = "127.0.0.1"  # Triton's API has no identity check: never another address

_SHARED_MEMORY = Path("/dev/shm")
_GRACE_S = 5  # for open calls, when told to stop; a dead stub would make Triton wait for all of it
_LAST_WORDS_S = 3  # that a server which cannot start takes to say why
_POLL_S = 0.1
_DEAD, _STOPPED = "Z", "T"  # in proc(5)
_LISTENS = "Started GRPCInferenceService"
_COMPLAINT = re.compile(r"^E\d{4} (?!.*CudaDriver)|^error: |UNAVAILABLE|Error")

# Triton stops by itself when its parent dies, and takes its stubs and shared memory along. Set by
# an interpreter of its own: code between fork and exec of a process with threads may hang.
_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True, slots=True)
class TritonServer:
    """A tritonserver whose models are ready."""

    address: str  # HOST:PORT of its gRPC
    pid: int  # also of its process group
    stubs: frozenset[int]  # process ids of the Python backend, one per instance of a model
    log: Path  # what it prints

    async def broken(self) -> str:
        """Wait until the server or one of its stubs has died; returns which, in words.

        Triton starts no stub anew, and goes on calling itself ready.
        """
        while True:
            alive = {process.pid for process in _group(self.pid) if process.state != _DEAD}
            if self.pid not in alive:
                return "tritonserver died"
            if self.stubs - alive:
                return "a Python stub of tritonserver died"
            await asyncio.sleep(_POLL_S)


@dataclass(frozen=True, slots=True)
class Port:
    """A port for Triton, as `reserved` gives it."""

    number: int
    shared: bool  # with the socket that keeps it free; nobody is connected to that: it is deaf


@contextmanager
def reserved(port: int) -> Iterator[Port]:
    """`port`, or for 0 a free one, which within this stays ours between two servers."""
    if port:
        yield Port(port, shared=False)
        return
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        keeper.bind((HOST, 0))
        yield Port(keeper.getsockname()[1], shared=True)


@asynccontextmanager
async def tritonserver(
    repository: Path,
    installed: Installed,
    *,
    log: Path,
    port: int | Port = 0,
    poll_s: int = 0,
    start_s: float = 60.0,
) -> AsyncIterator[TritonServer]:
    """A tritonserver that serves the model repository over gRPC on loopback, models ready.

    It takes no other address, speaks no HTTP, and lets nobody load models, register shared memory
    or change its logging. `port` 0 picks a free one. New versions are looked for every `poll_s`,
    or never. On exit its whole process group is gone, and what it had in /dev/shm; also when it
    was killed before.

    Raises:
        EngineUnavailable: it did not become ready within `start_s`; the message quotes its log.
    """
    async with AsyncExitStack() as stack:
        place = port if isinstance(port, Port) else stack.enter_context(reserved(port))
        start = partial(_started, repository, installed, log, place, poll_s, start_s)
        try:
            try:
                server = await stack.enter_async_context(start())
            except _Crashed:  # it takes a stub starved of processor time for dead, and aborts
                server = await stack.enter_async_context(start())
        except _Crashed as crashed:
            raise EngineUnavailable(str(crashed)) from None
        yield server


class _Crashed(Exception):
    """It was not refused anything: a signal ended it, or it lost a stub that was well."""


@asynccontextmanager
async def _started(
    repository: Path, installed: Installed, log: Path, port: Port, poll_s: int, start_s: float
) -> AsyncIterator[TritonServer]:
    prefix = f"diptych-{os.getpid()}-{secrets.token_hex(4)}-"
    with log.open("w") as output:
        process = await asyncio.create_subprocess_exec(
            *(str(installed.programs / "python"), "-c", _LAUNCHER, str(os.getpid())),
            *_command(repository, installed, prefix, poll_s),
            *(f"--grpc-port={port.number}", f"--reuse-grpc-port={int(port.shared)}"),
            env=_environment(installed),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        # Not only on exit: the stubs of a killed server must not wait for that.
        reaper = asyncio.create_task(_bury(process, prefix))
        stubs: frozenset[int] = frozenset()
        try:
            address = f"{HOST}:{port.number}"
            await _until_ready(process, address, prefix, log, start_s)
            stubs = frozenset(stub.pid for stub in _stubs(process.pid))
            yield TritonServer(address, process.pid, stubs, log)
        finally:
            await _stop(process, stubs)
            await reaper


def _command(repository: Path, installed: Installed, prefix: str, poll_s: int) -> list[str]:
    closed = "shared-memory,model-repository,trace,logging"
    return [
        str(installed.server),
        f"--id={prefix}",
        f"--model-repository={repository}",
        f"--backend-directory={installed.backends}",
        f"--model-control-mode={'poll' if poll_s else 'none'}",
        f"--repository-poll-secs={poll_s}",
        "--disable-auto-complete-config",  # what config.pbtxt says is all there is
        "--allow-http=false",
        "--allow-metrics=false",
        "--allow-gpu-metrics=false",  # it would look for a driver, and wait
        f"--grpc-address={HOST}",
        f"--grpc-restricted-protocol={closed}:diptych-admin={secrets.token_hex(16)}",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        f"--exit-timeout-secs={_GRACE_S}",
    ]


def _environment(installed: Installed) -> dict[str, str]:
    """Ours, but for what would lead the stub's Python to packages of another environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {
        **kept,
        "PATH": f"{installed.programs}:{kept.get('PATH', os.defpath)}",
        "LD_LIBRARY_PATH": str(installed.libraries),
        "VIRTUAL_ENV": str(Path(installed.programs).parent),
    }


async def _until_ready(
    process: asyncio.subprocess.Process, address: str, prefix: str, log: Path, start_s: float
) -> None:
    deadline = time.monotonic() + start_s
    happened = f"was not ready within {start_s:.0f} s"
    while process.returncode is None and time.monotonic() < deadline:
        if await _is_ready(address, prefix):
            return
        if any(stub.state == _DEAD for stub in _stubs(process.pid)):  # it may wait for ever
            happened = "lost a Python stub while it started"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _LAST_WORDS_S)
            break
        await asyncio.sleep(_POLL_S)
    if process.returncode is not None:
        happened = f"exited with status {process.returncode}"
    # Once it listens its models are loaded, and what ends it then is no fault of theirs.
    is_accident = (process.returncode or 0) < 0 or _has_listened(log)
    kind = _Crashed if is_accident else EngineUnavailable
    raise kind(f"tritonserver {happened}; {log} says:\n{_complaints(log)}")


async def _is_ready(address: str, name: str) -> bool:
    """Whether the server of that name is: another one may have the port."""
    async with grpc.aio.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        triton = rpc.GRPCInferenceServiceStub(channel)
        try:
            about = await triton.ServerMetadata(pb.ServerMetadataRequest(), timeout=1.0)
            ready = await triton.ServerReady(pb.ServerReadyRequest(), timeout=1.0)
        except grpc.aio.AioRpcError:
            return False
    return bool(ready.ready) and about.name == name


def _has_listened(log: Path) -> bool:
    return _LISTENS in log.read_text(errors="replace")


def _complaints(log: Path) -> str:
    """The last lines of the log that tell of errors, or else its last lines."""
    lines = [line.rstrip() for line in log.read_text(errors="replace").splitlines()]
    told = [line for line in lines if _COMPLAINT.search(line)] or lines
    return "\n".join(f"  {line}" for line in told[-12:])


async def _stop(process: asyncio.subprocess.Process, stubs: frozenset[int]) -> None:
    """Let open calls finish, where nothing is broken that they might wait for."""
    well = {stub.pid for stub in _stubs(process.pid) if stub.state not in (_DEAD, _STOPPED)}
    if process.returncode is None and stubs <= well:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _GRACE_S + 2)
    _kill_group(process.pid)


async def _bury(process: asyncio.subprocess.Process, prefix: str) -> None:
    await process.wait()
    _kill_group(process.pid)
    await asyncio.to_thread(_sweep, process.pid, prefix)


def _sweep(group: int, prefix: str) -> None:
    while any(process.state != _DEAD for process in _group(group)):
        time.sleep(0.01)
    for process in _group(group):  # they are ours to reap where we are process 1
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)
    for region in _SHARED_MEMORY.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


class _Process(NamedTuple):
    pid: int
    state: str  # a letter of proc(5)
    parent: int


def _stubs(server: int) -> list[_Process]:
    """Of the Python backend. What those start, and end, is their own affair."""
    return [process for process in _group(server) if process.parent == server]


def _group(group: int) -> list[_Process]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent, member = path.read_text().rpartition(")")[2].split()[:3]
            if int(member) == group:
                found.append(_Process(int(path.parent.name), state, int(parent)))
    return found
