"""The tritonserver we start is gone when we say so, and when anything kills it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import grpc
import psutil
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc

from diptych.engines.triton_install import Installed
from diptych.engines.triton_server import TritonServer, tritonserver
from diptych.errors import EngineUnavailable
from diptych_export import triton_config
from diptych_export.triton_config import Placement
from tests.serving import SHAPES

GONE_S = 5.0  # generous: this machine may be busy with other things


def alive(group: int) -> list[int]:
    """Processes of the group, those that only wait to be reaped left out."""
    found = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getpgid(process.pid) == group and process.info["status"] != "zombie":
                found.append(process.pid)
        except ProcessLookupError:
            continue
    return found


def stubs(server: int) -> list[int]:
    return [pid for pid in alive(server) if pid != server]


def regions(owner: int) -> list[Path]:
    """What the servers that process `owner` started have in /dev/shm."""
    return list(Path("/dev/shm").glob(f"diptych-{owner}-*"))


async def until(is_so: Callable[[], bool], within_s: float = GONE_S) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_a_stopped_server_leaves_nothing(
    installed: Installed, served: Path, tmp_path: Path
) -> None:
    before = set(regions(os.getpid()))
    async with tritonserver(served, installed, log=tmp_path / "log") as server:
        assert set(alive(server.pid)) == {server.pid, *server.stubs}
        assert len(server.stubs) == 2
        assert set(regions(os.getpid())) - before
    assert not alive(server.pid)
    assert set(regions(os.getpid())) == before


async def test_the_stubs_of_a_killed_server_are_gone_at_once(
    installed: Installed, served: Path, tmp_path: Path
) -> None:
    before = set(regions(os.getpid()))
    async with tritonserver(served, installed, log=tmp_path / "log") as server:
        os.kill(server.pid, signal.SIGKILL)
        assert await asyncio.wait_for(server.broken(), GONE_S) == "tritonserver died"
        await until(lambda: not alive(server.pid) and set(regions(os.getpid())) == before)


async def test_a_killed_stub_is_noticed_and_the_rest_stops_at_once(
    installed: Installed, served: Path, tmp_path: Path
) -> None:
    before = set(regions(os.getpid()))
    async with tritonserver(served, installed, log=tmp_path / "log") as server:
        os.kill(min(server.stubs), signal.SIGKILL)
        broken = await asyncio.wait_for(server.broken(), GONE_S)
        assert broken == "a Python stub of tritonserver died"
        stopped = time.monotonic()
    assert time.monotonic() - stopped < GONE_S  # Triton would wait for the stub for long
    assert not alive(server.pid)
    assert set(regions(os.getpid())) == before


async def test_a_server_stopped_by_a_signal_is_killed(
    installed: Installed, served: Path, tmp_path: Path
) -> None:
    async with tritonserver(served, installed, log=tmp_path / "log") as server:
        os.killpg(server.pid, signal.SIGSTOP)
    assert not alive(server.pid)


async def test_a_server_that_cannot_start_says_why(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.pbtxt").write_text('name: "empty" backend: "python"')
    with pytest.raises(EngineUnavailable, match=r"exited with status 1; .*log says:\n") as caught:
        async with tritonserver(tmp_path, installed, log=tmp_path / "log"):
            pass
    assert "at least one version must be available" in str(caught.value)


async def test_a_server_that_waits_for_a_dead_stub_is_given_up(
    installed: Installed, tmp_path: Path
) -> None:
    (tmp_path / "empty" / "1").mkdir(parents=True)
    (tmp_path / "empty" / "config.pbtxt").write_text('name: "empty" backend: "python"')
    with pytest.raises(EngineUnavailable, match="lost a Python stub while it started") as caught:
        async with tritonserver(tmp_path, installed, log=tmp_path / "log"):
            pass
    assert "Python model file not found" in str(caught.value)


def pretending(installed: Installed, path: Path, script: str) -> Installed:
    """As `installed`, but for its server, which is this shell script."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return replace(installed, server=path)


async def test_a_server_that_crashes_once_is_started_again(
    installed: Installed, served: Path, tmp_path: Path
) -> None:
    crash = f"test -e {tmp_path}/crashed || {{ touch {tmp_path}/crashed; kill -ABRT $$; }}"
    crashing = pretending(installed, tmp_path / "server", f'{crash}\nexec {installed.server} "$@"')
    async with tritonserver(served, crashing, log=tmp_path / "log") as server:
        assert alive(server.pid)


async def test_a_server_that_loses_a_stub_once_it_listens_is_started_again(
    installed: Installed, served: Path, tmp_path: Path
) -> None:
    lose = f"touch {tmp_path}/lost; echo Started GRPCInferenceService; true & exec sleep 60"
    script = f'test -e {tmp_path}/lost || {{ {lose}; }}\nexec {installed.server} "$@"'
    losing = pretending(installed, tmp_path / "server", script)
    async with tritonserver(served, losing, log=tmp_path / "log") as server:
        assert alive(server.pid)
    assert (tmp_path / "lost").exists()


async def test_a_server_that_crashes_twice_is_not(
    installed: Installed, served: Path, tmp_path: Path
) -> None:
    crashing = pretending(installed, tmp_path / "server", "echo no memory; kill -ABRT $$")
    with pytest.raises(EngineUnavailable, match=r"status -6; .*log says:\n  no memory"):
        async with tritonserver(served, crashing, log=tmp_path / "log"):
            pass


async def test_a_server_that_takes_too_long_is_given_up(
    installed: Installed, served: Path, tmp_path: Path
) -> None:
    slow = pretending(installed, tmp_path / "server", "sleep 60")
    with pytest.raises(EngineUnavailable, match="was not ready within 1 s"):
        async with tritonserver(served, slow, log=tmp_path / "log", start_s=1):
            pass


async def test_it_listens_on_loopback_for_grpc_only(triton: TritonServer) -> None:
    sockets = psutil.Process(triton.pid).net_connections()
    listening = {f"{s.laddr.ip}:{s.laddr.port}" for s in sockets if s.status == "LISTEN"}
    assert {address.removeprefix("::ffff:") for address in listening} == {triton.address}
    assert triton.address.startswith("127.0.0.1:")


async def test_two_servers_do_not_share_a_port(
    triton: TritonServer, installed: Installed, served: Path, tmp_path: Path
) -> None:
    port = int(triton.address.rpartition(":")[2])
    with pytest.raises(EngineUnavailable, match="already in use"):
        async with tritonserver(served, installed, log=tmp_path / "log", port=port):
            pass


async def test_nobody_manages_it_over_the_network(triton: TritonServer) -> None:
    async with grpc.aio.insecure_channel(triton.address) as channel:
        stub = rpc.GRPCInferenceServiceStub(channel)
        name = SHAPES.spec.name
        for call, request in [
            (stub.RepositoryModelUnload, pb.RepositoryModelUnloadRequest(model_name=name)),
            (stub.SystemSharedMemoryRegister, pb.SystemSharedMemoryRegisterRequest(name="x")),
            (stub.LogSettings, pb.LogSettingsRequest()),
        ]:
            with pytest.raises(grpc.aio.AioRpcError, match="restricted"):
                await call(request)


async def test_a_new_version_is_found_by_polling(
    installed: Installed, served: Path, tmp_path: Path
) -> None:
    """What a roll-out needs of Triton: the new version is served beside the old one."""
    root = tmp_path / "polled"
    shutil.copytree(served, root)
    async with (
        tritonserver(root, installed, log=tmp_path / "log", poll_s=1) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        triton_config.write(root, SHAPES.spec, Placement(), {2: "f" * 64})
        for folder in SHAPES.spec.folders.values():
            shutil.copytree(root / folder / "1", tmp_path / folder)
            (tmp_path / folder).rename(root / folder / "2")
        stub = rpc.GRPCInferenceServiceStub(channel)
        name = SHAPES.spec.folders[next(iter(SHAPES.spec.folders))]
        deadline = time.monotonic() + 10
        while True:
            metadata = await stub.ModelMetadata(pb.ModelMetadataRequest(name=name))
            if sorted(metadata.versions) == ["1", "2"]:
                break
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        served_config = (await stub.ModelConfig(pb.ModelConfigRequest(name=name))).config
    assert served_config.parameters["fingerprint_2"].string_value == "f" * 64
