"""Verdicts do not depend on where the towers run, nor on what else was asked in the call."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import numpy as np

from diptych.client import AsyncClient
from diptych.engines.triton_server import TritonServer
from diptych.gateway.server import gateway
from diptych.wire_moderation import Judgement, Subject
from diptych_export.data import captions
from diptych_export.data.drawing import picture
from diptych_export.data.scenes import PAIRS, one
from tests.serving import local

POLICY = """
name: toys
version: "1"
concepts:
  - name: red-triangle
    prompts: [a red triangle, a small red triangle, a large red triangle]
    threshold: 0.75
    text_threshold: 0.83
    action: block
    severity: 9
  - name: green
    prompts: [a green circle, a green square, a green star]
    measure: softmax
    contrast: [a red circle, a blue square, a yellow star, a black cross]
    threshold: 0.5
    text_threshold: 0.5
    action: flag
    severity: 2
  - name: star
    prompts: [a yellow star, a white star]
    measure: sigmoid
    threshold: 0.9
    text_threshold: 0.9
    action: review
    severity: 4
"""


def subjects(count: int) -> list[Subject]:
    """Images, texts and images with captions in turn, every other one of a concept."""
    rng = Random("verdicts")
    of = [("red", "triangle"), ("green", "circle"), ("yellow", "star")]
    found: list[Subject] = []
    for number in range(count):
        scene = one(rng, of[number // 2 % 3] if number % 2 else rng.choice(PAIRS))
        file = io.BytesIO()
        picture(scene, 64).save(file, "PNG")
        text = captions.single(rng, scene)
        image = file.getvalue()
        found.append((image, text, (image, text))[number % 3])
    return found


@asynccontextmanager
async def judging(folder: Path, repository: Path, **engine: str) -> AsyncIterator[AsyncClient]:
    """A gateway without caches: every verdict is made anew."""
    settings = local(
        repository=repository, policies=folder, image_cache_bytes=0, text_cache_bytes=0, **engine
    )
    async with gateway(settings) as running, AsyncClient(running.address) as client:
        yield client


async def verdicts(client: AsyncClient, given: Sequence[Subject]) -> list[Judgement]:
    return list((await client.moderate(given, "toys")).judgements)


async def test_verdicts_are_the_same_embedded_and_through_triton_alone_and_in_a_batch_of_64(
    triton: TritonServer, served: Path, tmp_path: Path
) -> None:
    (tmp_path / "toys.yaml").write_text(POLICY)
    given, there = subjects(64), f"triton://{triton.address}"
    ways: dict[str, list[Judgement]] = {}
    for engine, flags in (("embedded", {"precision": "fp32"}), ("triton", {"engine": there})):
        async with judging(tmp_path, served, **flags) as client:
            ways[engine] = await verdicts(client, given)
            ways[f"{engine}, alone"] = [(await verdicts(client, [each]))[0] for each in given]
    usual = ways.pop("embedded")
    assert {one.verdict for one in usual} == {"pass", "flag", "review", "block"}
    for way, found in ways.items():
        assert [one.verdict for one in found] == [one.verdict for one in usual], way
        assert [one.reached for one in found] == [one.reached for one in usual], way
        for ours, theirs in zip(usual, found, strict=True):
            np.testing.assert_allclose(
                [concept.score for concept in theirs.concepts],
                [concept.score for concept in ours.concepts],
                rtol=1e-3,
                atol=1e-4,
                err_msg=way,
            )
