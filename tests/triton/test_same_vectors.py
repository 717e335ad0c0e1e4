"""The embedded engine and a real Triton are one model: same inputs, same outputs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from diptych import repository
from diptych.canary import prove
from diptych.contract import Tower
from diptych.engines.base import EMBEDS, PIXELS, TOKENS, Array
from diptych.engines.embedded import EmbeddedEngine
from diptych.engines.triton import TritonEngine
from diptych.engines.triton_checks import expected
from diptych.engines.triton_install import Installed
from diptych.engines.triton_server import tritonserver
from diptych.preprocess.text import pad_tokens
from diptych.repository import ModelFiles
from diptych.scoring import unit
from tests.serving import REPOSITORY, SHAPES

SIZES = [1, 3, 64, 65, 200]  # 64 is the most that Triton takes at once


def pixels(rows: int) -> dict[str, Array]:
    """Random pictures, smooth enough to look like some."""
    size = SHAPES.spec.image.size
    coarse = np.random.default_rng(1).integers(0, 256, (rows, 8, 8, 3), dtype=np.uint8)
    fine = coarse.repeat(-(-size // 8), axis=1).repeat(-(-size // 8), axis=2)
    return {PIXELS: np.ascontiguousarray(fine[:, :size, :size])}


def texts(rows: int) -> dict[str, Array]:
    """Random texts of many lengths, padded as the gateway pads a batch."""
    spec, random = SHAPES.spec.text, np.random.default_rng(2)
    lengths = random.integers(1, spec.context_length - 2, rows)
    start = [] if spec.start_id is None else [spec.start_id]
    batch = [
        np.array([*start, *random.integers(0, spec.end_id, length), spec.end_id])
        for length in lengths
    ]
    return {TOKENS: pad_tokens(batch, spec)[0]}


def least_cosine(ours: Array, theirs: Array) -> float:
    return float(np.einsum("nd,nd->n", unit(ours), unit(theirs)).min())


@pytest.mark.parametrize("rows", SIZES)
async def test_images_have_the_same_vectors(
    rows: int, engine: TritonEngine, embedded: EmbeddedEngine
) -> None:
    name = EMBEDS[Tower.IMAGE]
    there = await engine.run(Tower.IMAGE, pixels(rows), [name])
    here = await embedded.run(Tower.IMAGE, pixels(rows), [name])
    assert there[name].shape == (rows, SHAPES.spec.embed_dim)
    assert least_cosine(here[name], there[name]) >= 0.99999


@pytest.mark.parametrize("rows", [*SIZES, 500])
async def test_texts_have_the_same_vectors(
    rows: int, engine: TritonEngine, embedded: EmbeddedEngine
) -> None:
    name = EMBEDS[Tower.TEXT]
    there = await engine.run(Tower.TEXT, texts(rows), [name])
    here = await embedded.run(Tower.TEXT, texts(rows), [name])
    assert least_cosine(here[name], there[name]) >= 0.99999


@pytest.mark.parametrize("tower", Tower)
async def test_every_output_is_the_same_and_only_those_asked_for_come(
    tower: Tower, engine: TritonEngine, embedded: EmbeddedEngine
) -> None:
    inputs = pixels(5) if tower is Tower.IMAGE else texts(5)
    names = list(expected(SHAPES.spec, tower)[1])
    for asked in (names, names[::-1], names[-1:]):
        there = await engine.run(tower, inputs, asked)
        here = await embedded.run(tower, inputs, asked)
        assert list(there) == asked
        for name in asked:
            np.testing.assert_allclose(there[name], here[name], rtol=1e-3, atol=1e-4)


async def test_callers_at_once_get_their_own_vectors(
    engine: TritonEngine, embedded: EmbeddedEngine
) -> None:
    """Triton puts their requests together: those of one length, and takes the answer apart."""
    batches = [{TOKENS: texts(60)[TOKENS][i : i + 1, : 8 * (1 + i % 2)]} for i in range(60)]
    name = EMBEDS[Tower.TEXT]
    there = await asyncio.gather(*(engine.run(Tower.TEXT, batch, [name]) for batch in batches))
    for batch, answer in zip(batches, there, strict=True):
        here = await embedded.run(Tower.TEXT, batch, [name])
        assert least_cosine(here[name], answer[name]) >= 0.99999


async def test_the_shipped_repository_is_served_as_it_is(
    installed: Installed, tmp_path: Path
) -> None:
    files, before = repository.load(REPOSITORY, SHAPES.spec.name), set(REPOSITORY.rglob("*"))
    async with tritonserver(REPOSITORY, installed, log=tmp_path / "log") as server:
        engine = await TritonEngine.connect(server.address, files)
        await prove(engine, files.spec, rows=64)
        await engine.close()
    assert set(REPOSITORY.rglob("*")) == before


async def test_the_engine_says_what_it_is(engine: TritonEngine, files: ModelFiles) -> None:
    assert engine.description == "triton 2.51.0, backend python"
    assert engine.in_flight == 1
