"""`diptych triton` keeps a server running, and takes it along when it goes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from diptych.engines.triton_supervisor import run_triton
from diptych.errors import EngineUnavailable
from tests.triton.conftest import ROOT
from tests.triton.test_server_life import GONE_S, alive, regions, stubs, until

PROGRAM = """
import asyncio, sys
from pathlib import Path
from diptych.engines.triton_supervisor import run_triton

async def main():
    root, venv, pins, log = map(Path, sys.argv[1:])
    say = lambda line: print(line, flush=True)
    await run_triton(root, log=log, told=asyncio.Event(), say=say, folder=venv, pins=pins)

asyncio.run(main())
"""


async def test_it_dies_with_the_process_that_started_it(served: Path, tmp_path: Path) -> None:
    paths = [served, ROOT / ".venv-triton", ROOT / "constraints-triton.txt", tmp_path / "log"]
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, *map(str, paths)), stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    first = (await parent.stdout.readline()).decode()
    assert first.startswith("tritonserver ")
    group = int(first.split()[1])
    assert alive(group)
    parent.kill()
    await parent.wait()
    await until(lambda: not alive(group) and not regions(parent.pid))


async def test_run_triton_says_where_it_is_and_stops_when_told(
    served: Path, tmp_path: Path
) -> None:
    told, said = asyncio.Event(), []

    def say(line: str) -> None:
        said.append(line)
        told.set()

    await run(served, tmp_path, told, say)
    assert "on 127.0.0.1:" in said[0]
    assert "--engine triton://127.0.0.1:" in said[1]
    assert said[2] == "stopping tritonserver"


async def test_run_triton_heeds_its_end_while_starting(served: Path, tmp_path: Path) -> None:
    told = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, told.set)
    started = time.monotonic()
    await run(served, tmp_path, told, lambda line: None)
    assert time.monotonic() - started < GONE_S


@pytest.mark.parametrize("victim", ["server", "stub"])
async def test_run_triton_starts_a_new_server_at_the_same_address_when_one_dies(
    victim: str, served: Path, tmp_path: Path
) -> None:
    told, said = asyncio.Event(), []

    def say(line: str) -> None:
        said.append(line)
        births = [line.split() for line in said if "(gRPC)" in line]
        if line.startswith("serve through it"):
            server = int(births[0][1])
            os.kill(server if victim == "server" else stubs(server)[0], signal.SIGKILL)
        elif len(births) == 2:
            told.set()

    await run(served, tmp_path, told, say)
    first, _, death, second, last = said
    assert death.startswith(("tritonserver died", "a Python stub of tritonserver died"))
    assert "the next one starts in 1 s" in death  # not at once: it had only just begun
    assert first.split()[3] == second.split()[3]
    assert first.split()[1] != second.split()[1]
    assert last == "stopping tritonserver"
    assert not alive(int(first.split()[1]))
    assert "Started GRPCInferenceService" in (tmp_path / "log.old").read_text()


async def test_run_triton_fails_when_the_first_server_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "root" / "empty").mkdir(parents=True)
    (tmp_path / "root" / "empty" / "config.pbtxt").write_text('name: "empty" backend: "python"')
    with pytest.raises(EngineUnavailable, match="at least one version must be available"):
        await run(tmp_path / "root", tmp_path, asyncio.Event(), lambda line: None)


async def test_run_triton_goes_on_trying_once_it_had_a_server(served: Path, tmp_path: Path) -> None:
    """What stands in the way of a start may pass: here, a repository that is being replaced."""
    root, told, said = tmp_path / "root", asyncio.Event(), []
    shutil.copytree(served, root)

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("serve through it"):
            root.rename(tmp_path / "away")
            os.kill(int(said[0].split()[1]), signal.SIGKILL)
        elif "starts in 2 s" in line:
            (tmp_path / "away").rename(root)
        elif "(gRPC)" in line and len(said) > 1:
            told.set()

    await run(root, tmp_path, told, say)
    assert [line for line in said if "exited with status 1" in line]


async def run(
    served: Path, tmp_path: Path, told: asyncio.Event, say: Callable[[str], None]
) -> None:
    venv, pins = ROOT / ".venv-triton", ROOT / "constraints-triton.txt"
    await run_triton(served, log=tmp_path / "log", told=told, say=say, folder=venv, pins=pins)
