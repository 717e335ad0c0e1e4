"""The servers under test, each a process of its own, and what they use of the machine."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.traffic import Case

_READY_S = 180.0
_STOP_S = 60.0


@dataclass(frozen=True, slots=True)
class Server:
    """A server that says it is ready."""

    address: str
    pid: int

    def cpu_s(self) -> float:
        """Processor time that it and its children have used, in seconds."""
        own = psutil.Process(self.pid)
        times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
        return sum(time.user + time.system for time in times)

    def memory_bytes(self) -> int:
        """Resident memory now."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def peak_bytes(self) -> int:
        """The most resident memory it ever had."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024


@contextmanager
def gateway(*flags: str) -> Iterator[Server]:
    """`diptych serve` on a free port of loopback."""
    command = [sys.executable, "-m", "diptych", "serve", "--host", "127.0.0.1", "--port", "0"]
    with _running([*command, *flags], r"listening on (\S+)") as server:
        yield server


@contextmanager
def triton(repository: Path, log: Path) -> Iterator[Server]:
    """`diptych triton` on a free port of loopback."""
    command = [sys.executable, "-m", "diptych", "triton", "--port", "0"]
    command += ["--repository", str(repository), "--log", str(log)]
    with _running(command, r" on (\S+) \(gRPC\)") as server:
        yield server


class Machine:
    """What it does with no server at all, by `bench.alone`: a process that idles meanwhile."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.found = self._next()

    def anew(self, case: Case) -> dict[str, Any]:
        """`found` with what `case` needs measured again, now."""
        assert self._process.stdin is not None
        print(*case.kinds, file=self._process.stdin, flush=True)
        fresh = self._next()
        return self.found | fresh

    def _next(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("bench.alone has ended")
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def machine(repository: Path, model: str) -> Iterator[Machine]:
    """With its first figures, which take half a minute."""
    command = [sys.executable, "-m", "bench.alone", "--repository", str(repository)]
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, "--model", model], stdin=pipe, stdout=pipe, text=True) as one:
        try:
            yield Machine(one)
        finally:
            one.terminate()


def load(server: Server, case: Case, **flags: float) -> dict[str, Any]:
    """What one run of `bench.load` prints."""
    command = [sys.executable, "-m", "bench.load", "--address", server.address]
    command += ["--case", case.name]
    for name, value in flags.items():
        command += [f"--{name}", str(value)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextmanager
def _running(command: Sequence[str], ready: str) -> Iterator[Server]:
    # A server has a session of its own: without this, it would outlive a benchmark that is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    said: deque[str] = deque(maxlen=20)
    # A server that never becomes ready ends its output, and so the wait.
    too_late = threading.Timer(_READY_S, process.kill)
    too_late.start()
    try:
        address = _address(process, ready, said)
        too_late.cancel()
        yield Server(address, process.pid)
        if process.poll() is not None:
            last = "\n".join(said)
            raise RuntimeError(f"the server ended with status {process.returncode}:\n{last}")
    finally:
        too_late.cancel()
        process.terminate()
        try:
            process.wait(_STOP_S)
        finally:
            process.kill()


def _address(process: subprocess.Popen[str], ready: str, said: deque[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line.rstrip())
        if found := re.search(ready, line):
            # What it says later is read, so that it never waits for a full pipe.
            threading.Thread(target=said.extend, args=(process.stdout,), daemon=True).start()
            return found[1]
    raise RuntimeError("the server did not start:\n" + "\n".join(said))
