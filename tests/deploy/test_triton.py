"""What the Triton image is started and watched with, on a real tritonserver."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from diptych.engines.triton_install import Installed, install
from diptych.engines.triton_server import TritonServer, tritonserver
from diptych.settings import Settings
from tests.deploy.manifests import Manifest, of_kind, pod
from tests.serving import REPOSITORY

ROOT = Path(__file__).parents[2]
PARTS = ROOT / "deploy" / "images" / "triton-parts"

Rendered = dict[str, list[Manifest]]


@pytest.fixture(scope="module")
def installed() -> Installed:
    return install(ROOT / ".venv-triton", ROOT / "constraints-triton.txt")


def told(installed: Installed) -> str:
    """What this tritonserver says of its flags."""
    done = subprocess.run([installed.server, "--help"], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_every_flag_is_one_that_tritonserver_knows(
    services: Rendered, installed: Installed, tmp_path: Path
) -> None:
    known = set(re.findall(r"--[\w-]+", told(installed)))
    entry = set(re.findall(r"--[\w-]+", (PARTS / "serve").read_text()))
    assert entry == {"--grpc-restricted-protocol"}
    seen = 0
    for found in services.values():
        if "triton" in {d["metadata"]["name"] for d in of_kind(found, "Deployment")}:
            flags = {word.partition("=")[0] for word in pod(found, "triton").main["args"]}
            assert flags | entry <= known
            seen += 1
    assert seen >= 10


def test_only_a_volume_that_can_change_is_looked_at_again(services: Rendered) -> None:
    for name, found in services.items():
        if "engine-triton" in name:
            polls = "--model-control-mode=poll" in pod(found, "triton").main["args"]
            assert polls is ("models-pvc" in name)


def test_the_entry_point_closes_what_callers_have_no_business_with(tmp_path: Path) -> None:
    """A stand-in prints its own command line: what the image would start."""
    server = tmp_path / "tritonserver"
    server.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    server.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def started() -> list[str]:
        command = [str(PARTS / "serve"), "--model-repository=/models"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    restricted, repository = started()
    closed, _, key = restricted.partition("=")[2].partition(":diptych-admin=")
    assert closed.split(",") == ["shared-memory", "model-repository", "trace", "logging"]
    assert len(key) == 36
    assert repository == "--model-repository=/models"
    assert restricted not in started()  # another key each time


async def test_probes_see_a_ready_server_and_a_dead_stub(
    gpu: list[Manifest], installed: Installed, tmp_path: Path
) -> None:
    probes = pod(gpu, "triton").main
    assert probes["livenessProbe"]["exec"] == {"command": ["/opt/diptych/alive"]}
    assert all("grpc" in probes[f"{kind}Probe"] for kind in ("startup", "readiness"))
    async with tritonserver(REPOSITORY, installed, log=tmp_path / "log") as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            reply = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        assert await alive(server) == 0
        os.kill(min(server.stubs), signal.SIGKILL)
        async with asyncio.timeout(5):
            await server.broken()
        assert await alive(server) == 1


async def alive(server: TritonServer) -> int:
    """What the image's probe says of this server's processes."""
    process = await asyncio.create_subprocess_exec(
        PARTS / "alive", str(server.pid), stdout=subprocess.DEVNULL
    )
    return await process.wait()


def test_gateways_have_two_batches_for_each_triton_that_may_be(gpu: list[Manifest]) -> None:
    """Fewer would leave Tritons idle."""
    [given] = [
        one["data"]["DIPTYCH_TRITON_REPLICAS"]
        for one in of_kind(gpu, "ConfigMap")
        if one["metadata"]["name"].startswith("diptych-settings-")
    ]
    [most] = [
        one["spec"]["maxReplicas"]
        for one in of_kind(gpu, "HorizontalPodAutoscaler")
        if one["metadata"]["name"] == "triton"
    ]
    [gateways] = [
        one["spec"]["minReplicas"]
        for one in of_kind(gpu, "HorizontalPodAutoscaler")
        if one["metadata"]["name"] == "gateway"
    ]
    assert Settings(triton_replicas=int(given)).triton_replicas * gateways >= most
