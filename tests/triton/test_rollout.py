"""Versions published and taken back while calls go on, through a real Triton that polls."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from diptych import repository
from diptych.client import AsyncClient
from diptych.contract import ModelSpec, Tower
from diptych.engines.base import EMBEDS, PACKED
from diptych.engines.triton_install import Installed
from diptych.engines.triton_server import tritonserver
from diptych.errors import SpaceMismatch
from diptych.gateway.server import gateway
from diptych.wire import Input, Options, Vectors
from diptych_export import repository as publishing
from diptych_export.rollback import republish
from diptych_export.triton_config import Placement
from tests.drawing import PICTURES
from tests.serving import SHAPES, local

INPUTS: list[Input] = [
    *(path.read_bytes() for path in sorted(PICTURES.glob("*.*"))),
    "a red circle",
    "a star",
]
CALLERS = 16


def publish_negated(root: Path) -> ModelSpec:
    """A second version, whose vectors are those of the first times -1, in both towers.

    Within it all cosines are as before; between the two they change sign.
    """
    files = repository.load(root, SHAPES.spec.name)
    spec = files.spec.model_copy(update={"version": files.spec.version + 1})
    with publishing.staging(root) as stage:
        place = stage, spec.name, spec.version
        graphs = {tower: publishing.graph_path(*place, tower) for tower in Tower}
        for tower, path in graphs.items():
            onnx.save(negated(onnx.load(files.graphs[tower]), [EMBEDS[tower], PACKED]), path)
        tokenizer = publishing.tokenizer_path(*place)
        tokenizer.write_bytes(files.tokenizer.read_bytes())
        canary = {t.value: tuple(-x for x in getattr(spec.canary, t)) for t in Tower}
        spec = spec.model_copy(
            update={
                "canary": type(spec.canary)(**canary),
                "fingerprint": repository.fingerprint(
                    graphs[Tower.IMAGE], graphs[Tower.TEXT], tokenizer, spec.image, spec.text
                ),
            }
        )
        publishing.complete(stage, root, spec, Placement(precision="fp32"))
        publishing.publish(stage, root, spec)
    return spec


def negated(model: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """With the signs turned of those of `outputs` that it has."""
    for output in {own.name for own in model.graph.output}.intersection(outputs):
        before = f"{output}_before"
        for node in model.graph.node:
            node.output[:] = [before if name == output else name for name in node.output]
        model.graph.node.append(onnx.helper.make_node("Neg", [before], [output]))
    return model


class Load:
    """Callers who know the vectors of every space, and fail at the first wrong answer."""

    def __init__(self, client: AsyncClient, known: dict[str, Vectors]) -> None:
        self._client = client
        self._known = known
        self.seen: dict[int, int] = {}  # calls by version
        self.stopping = False

    async def call(self, dice: random.Random) -> None:
        while not self.stopping:
            places = dice.sample(range(len(INPUTS)), 3)
            reply = await self._client.embed([INPUTS[place] for place in places])
            expected = self._known[reply.space.fingerprint][places]
            assert np.einsum("nd,nd->n", reply.vectors, expected).min() >= 0.9999
            [score] = (await self._client.score(["a red circle"], ["a red circle"])).scores[0]
            assert score > 0
            self.seen[reply.space.version] = self.seen.get(reply.space.version, 0) + 1


async def until_served(client: AsyncClient, version: int) -> None:
    async with asyncio.timeout(30):
        while (await client.embed(["a"])).space.version != version:
            pass


async def pinned(client: AsyncClient, fingerprint: str) -> None:
    await client.embed(["a"], Options(expected_fingerprint=fingerprint))


async def test_a_version_is_rolled_out_and_back_under_load(
    served: Path, installed: Installed, tmp_path: Path
) -> None:
    root = shutil.copytree(served, tmp_path / "root")
    old = SHAPES.spec.fingerprint
    async with (
        tritonserver(root, installed, log=tmp_path / "log", poll_s=1) as server,
        gateway(
            local(repository=root, engine=f"triton://{server.address}", refresh_s=0.2)
        ) as running,
        AsyncClient(running.address, retries=False) as client,
    ):
        first = (await client.embed(INPUTS)).vectors
        known = {old: first}
        load = Load(client, known)
        callers = [asyncio.create_task(load.call(random.Random(n))) for n in range(CALLERS)]
        new = (await asyncio.to_thread(publish_negated, root)).fingerprint
        known[new] = -first
        await until_served(client, 2)
        with pytest.raises(SpaceMismatch, match="version 2 serves the space"):
            await pinned(client, old)
        await asyncio.sleep(1)
        again = await asyncio.to_thread(republish, root, SHAPES.spec.name, 1)
        assert (again.version, again.fingerprint) == (3, old)
        await until_served(client, 3)
        await pinned(client, old)
        with pytest.raises(SpaceMismatch, match="version 3 serves the space"):
            await pinned(client, new)
        await asyncio.sleep(1)
        load.stopping = True
        await asyncio.gather(*callers)  # no call failed, no answer was of another space
    assert set(load.seen) == {1, 2, 3}
