"""Versions published, refused and taken back while calls go on: through a real socket."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from diptych import repository
from diptych.client import AsyncClient
from diptych.contract import ModelSpec, Tower
from diptych.errors import SpaceMismatch
from diptych.gateway.server import gateway
from diptych.wire import Input, Options
from tests.serving import REPOSITORY, SHAPES, local


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the shipped repository, to publish into."""
    for tower in Tower:
        shutil.copytree(REPOSITORY / f"shapes_{tower}", tmp_path / f"shapes_{tower}")
    return tmp_path


def publish(root: Path, version: int, change: Callable[[ModelSpec], ModelSpec]) -> ModelSpec:
    """A version made from the shipped one, moved into place tower by tower."""
    spec = change(SHAPES.spec.model_copy(update={"version": version}))
    files = repository.load(root, "shapes", 1)
    print_ = repository.fingerprint(
        files.graphs[Tower.IMAGE],
        files.graphs[Tower.TEXT],
        files.tokenizer,
        spec.image,
        spec.text,
    )
    spec = spec.model_copy(update={"fingerprint": print_})
    for tower in Tower:
        folder = root / f"shapes_{tower}"
        draft = folder / "draft"
        shutil.copytree(folder / "1", draft)
        (draft / "spec.json").write_text(json.dumps(spec.model_dump(mode="json")))
        draft.rename(folder / str(version))
    return spec


def another_space(spec: ModelSpec) -> ModelSpec:
    """The same towers, another resize rule: other vectors for pictures that are not square."""
    return spec.model_copy(update={"image": spec.image.model_copy(update={"resize": "squash"})})


async def until_served(client: AsyncClient, version: int) -> None:
    async with asyncio.timeout(10):
        while (await client.embed(["a"])).space.version != version:
            pass


async def test_a_new_version_is_taken_up_and_taken_back_under_load(root: Path) -> None:
    seen: set[tuple[int, str]] = set()
    stop = asyncio.Event()

    async def load(client: AsyncClient) -> int:
        calls = 0
        while not stop.is_set():
            space = (await client.embed(["a star", "a red circle"])).space
            seen.add((space.version, space.fingerprint))
            calls += 1
        return calls

    async with (
        gateway(local(repository=root, refresh_s=0.1)) as running,
        AsyncClient(running.address) as client,
    ):
        callers = [asyncio.create_task(load(client)) for _ in range(8)]
        await until_served(client, 1)
        spec = await asyncio.to_thread(publish, root, 2, another_space)
        await until_served(client, 2)
        with pytest.raises(SpaceMismatch, match="version 2 serves the space"):
            await client.embed(["a"], Options(expected_fingerprint=SHAPES.spec.fingerprint))
        for tower in Tower:
            shutil.rmtree(root / f"shapes_{tower}" / "2")
        await until_served(client, 1)
        stop.set()
        assert min(await asyncio.gather(*callers)) > 0  # no call failed
    assert seen == {(1, SHAPES.spec.fingerprint), (2, spec.fingerprint)}


async def test_a_version_that_cannot_be_served_changes_nothing(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        gateway(local(repository=root, refresh_s=0.05)) as running,
        AsyncClient(running.address) as client,
    ):
        publish(root, 2, another_space)
        await until_served(client, 2)
        for tower in Tower:
            (root / f"shapes_{tower}" / "3").mkdir()
        await asyncio.sleep(1)
        assert (await client.embed(["a"])).space.version == 2
    refused = [record.message for record in caplog.records if "is not served" in record.message]
    assert len(refused) == 1  # said once, not at every look
    assert "spec.json: missing" in refused[0]


async def test_a_call_under_way_ends_in_the_version_it_began_in(root: Path) -> None:
    async with (
        gateway(local(repository=root, refresh_s=0.05)) as running,
        AsyncClient(running.address) as client,
    ):

        async def slowly() -> AsyncIterator[tuple[str, Input]]:
            yield "first", "a"
            await until_served(client, 2)
            yield "second", "a"

        publisher = asyncio.get_running_loop().run_in_executor(
            None, publish, root, 2, another_space
        )
        results = [result async for result in client.embed_stream(slowly())]
        await publisher
    assert {result.space.version for result in results} == {1}
    assert all(result.vector is not None for result in results)
