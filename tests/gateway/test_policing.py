"""Policies that change, go bad or lose their space while calls go on: through a real socket."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import urllib.request
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from diptych.client import AsyncClient
from diptych.contract import Tower
from diptych.engines.base import Engine
from diptych.errors import DiptychError, EngineUnavailable
from diptych.gateway.opening import open_engine
from diptych.gateway.server import gateway, told_to_look
from diptych.metrics import Metrics
from diptych.repository import ModelFiles
from diptych.settings import Settings
from diptych.testing import FaultyEngine
from tests.drawing import PICTURES
from tests.gateway.test_rollout import another_space, publish, until_served
from tests.serving import REPOSITORY, SHAPES, local
from tests.test_policies import GOOD, MALFORMED

STAR = (PICTURES / "yellow_star.png").read_bytes()

POLICY = """
name: toys
version: "1"
concepts:
  - {name: circle, prompts: [a red circle], text_threshold: 0.9, action: flag, severity: 1}
"""


def write(folder: Path, text: str, name: str = "toys.yaml") -> None:
    """As editors and Kubernetes do: complete beside, then renamed into place."""
    draft = folder / "draft"
    draft.write_text(text)
    draft.rename(folder / name)


async def until(done: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(15):
        while True:
            if await done():
                return
            await asyncio.sleep(0.02)


async def version(client: AsyncClient) -> str:
    return (await client.moderate(["a red circle"], "toys")).version


async def test_a_changed_policy_is_taken_up_and_a_bad_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, POLICY)
    settings = local(policies=tmp_path, refresh_s=0.05, metrics_port=0)
    async with gateway(settings) as running, AsyncClient(running.address) as client:
        assert await version(client) == "1"
        write(tmp_path, POLICY.replace("severity: 1", "severity: x"))
        await until(lambda: _said(caplog, "not taken up"))
        await asyncio.sleep(0.3)
        assert await version(client) == "1"
        write(tmp_path, POLICY.replace('"1"', '"2"'))
        await until(lambda: _is(client, "2"))
        write(tmp_path, POLICY.replace("toys", "games"), "games.yaml")
        await until(lambda: _serves(client, 2))
        (tmp_path / "games.yaml").unlink()
        await until(lambda: _serves(client, 1))
        url = f"http://{running.metrics_address}/metrics"
        text = (await asyncio.to_thread(urllib.request.urlopen, url)).read().decode()
    [line] = [record.message for record in caplog.records if "not taken up" in record.message]
    assert "toys.yaml: concept 'circle': severity: " in line  # said once, not at every look
    for line in (
        'diptych_policy_reloads_total{outcome="refused"} 1.0',
        'diptych_policy_reloads_total{outcome="served"} 3.0',
        'diptych_policy_info{fingerprint="",policy="toys",version="2"} 1.0',
        'diptych_concepts_reached_total{concept="circle",policy="toys"}',
        'diptych_verdicts_total{policy="toys",verdict="flag"}',
    ):
        assert line in text
    assert 'version="1"} 1.0' not in text.split("diptych_policy_info", 1)[1]


async def test_a_version_that_judges_otherwise_than_before_is_not_taken_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, POLICY)
    settings = local(policies=tmp_path, refresh_s=0.05)
    async with gateway(settings) as running, AsyncClient(running.address) as client:
        first = await client.moderate(["a red circle"], "toys")
        write(tmp_path, POLICY.replace("0.9", "0.8"))
        await until(lambda: _said(caplog, "version: '1' is in use with other concepts"))
        assert (await client.moderate(["a red circle"], "toys")).digest == first.digest
        write(tmp_path, f"{POLICY}description: said in other words\n")
        await until(lambda: _described(client, "said in other words"))
        write(tmp_path, POLICY.replace("0.9", "0.8").replace('"1"', '"2"'))
        await until(lambda: _is(client, "2"))
        second = await client.moderate(["a red circle"], "toys")
        [listed] = await client.policies()
    assert first.digest != second.digest == listed.digest


async def test_the_last_good_policy_stays_whatever_its_file_becomes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, GOOD.replace("weapons", "toys"))
    settings = local(policies=tmp_path, refresh_s=0.01)
    async with gateway(settings) as running, AsyncClient(running.address) as client:
        [good] = await client.policies()
        for number, (text, problem) in enumerate(MALFORMED):
            write(tmp_path, text.replace("weapons", "toys"))
            await until(partial(_refusals, caplog, number + 1))
            line = caplog.records[-1].message
            assert re.search(f"toys.yaml: {problem}", line), line
        assert list(await client.policies()) == [good]
        assert not isinstance((await client.moderate([STAR], "toys")).results[0], DiptychError)


async def test_a_folder_that_goes_away_leaves_its_policies_in_force(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    write(folder, POLICY)
    settings = local(policies=folder, refresh_s=0.05)
    async with gateway(settings) as running, AsyncClient(running.address) as client:
        shutil.rmtree(folder)
        await until(lambda: _said(caplog, "no such folder of policies"))
        assert await version(client) == "1"


async def test_a_hangup_makes_the_gateway_look_at_once(tmp_path: Path) -> None:
    write(tmp_path, POLICY)
    settings = local(policies=tmp_path, refresh_s=3600)
    look = told_to_look()
    try:
        async with gateway(settings, look=look) as running, AsyncClient(running.address) as client:
            write(tmp_path, POLICY.replace('"1"', '"2"'))
            await asyncio.sleep(0.2)
            assert await version(client) == "1"
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: _is(client, "2"))
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)


async def test_an_engine_that_is_away_only_delays_a_changed_policy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engines: list[FaultyEngine] = []

    async def engine_for(
        files: ModelFiles, settings: Settings, wait_s: float, metrics: Metrics
    ) -> Engine:
        engines.append(
            FaultyEngine(await open_engine(files, settings, wait_s, metrics), files.spec)
        )
        return engines[0]

    write(tmp_path, POLICY)
    settings = local(policies=tmp_path, refresh_s=0.05)
    async with gateway(settings, engine_for) as running, AsyncClient(running.address) as client:
        engines[0].failure = EngineUnavailable("gone for a walk")
        write(tmp_path, POLICY.replace('"1"', '"2"').replace("red", "blue"))
        await until(lambda: _said(caplog, "policies wait for the engine"))
        engines[0].failure = None
        await until(lambda: _is(client, "2"))


async def test_a_version_is_not_rolled_out_past_the_thresholds_in_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, folder = tmp_path / "repository", tmp_path / "policies"
    folder.mkdir()
    for tower in Tower:
        shutil.copytree(REPOSITORY / f"shapes_{tower}", root / f"shapes_{tower}")
    write(folder, f"{POLICY}fingerprint: {SHAPES.spec.fingerprint}\n")
    settings = local(repository=root, policies=folder, refresh_s=0.05)
    async with gateway(settings) as running, AsyncClient(running.address) as client:
        spec = await asyncio.to_thread(publish, root, 2, another_space)
        await until(lambda: _said(caplog, "policy 'toys' was calibrated on another space"))
        assert (await client.embed(["a"])).space.version == 1
        write(folder, f"{POLICY.replace('1', '2', 1)}fingerprint: {spec.fingerprint}\n", "2.yaml")
        await until_served(client, 2)
        reply = await client.moderate(["a red circle"], "toys")
        assert (reply.version, reply.space.fingerprint) == ("2", spec.fingerprint)


async def _is(client: AsyncClient, wanted: str) -> bool:
    return await version(client) == wanted


async def _serves(client: AsyncClient, policies: int) -> bool:
    return len(await client.policies()) == policies


async def _refusals(caplog: pytest.LogCaptureFixture, wanted: int) -> bool:
    return sum("not taken up" in record.message for record in caplog.records) == wanted


async def _described(client: AsyncClient, words: str) -> bool:
    return [policy.description for policy in await client.policies()] == [words]


async def _said(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    return text in caplog.text
