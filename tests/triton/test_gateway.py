"""The gateway in front of a real Triton: the same answers as without, or no start."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych import repository
from diptych.client import AsyncClient
from diptych.contract import Tower
from diptych.engines.triton_server import TritonServer
from diptych.errors import BadRepository
from diptych.gateway.server import gateway
from diptych.repository import ModelFiles
from diptych.wire import Input, MeasureName, Vectors
from tests.serving import local

AT_ONCE = 100  # inputs of a request


def pictures(count: int) -> list[bytes]:
    """PNG and JPEG files of many sizes and shapes."""
    random = np.random.default_rng(3)
    files = []
    for number in range(count):
        coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        size = (int(random.integers(20, 200)), int(random.integers(20, 200)))
        file = io.BytesIO()
        Image.fromarray(coarse).resize(size).save(file, ("PNG", "JPEG")[number % 2])
        files.append(file.getvalue())
    return files


def captions(count: int) -> list[str]:
    """Texts of one to five words and a number."""
    random = np.random.default_rng(4)
    words = ["red", "circle", "above", "a", "blue", "square", "ruby", "lawn", "Ünïcode", "42", "星"]
    return [
        " ".join([*random.choice(words, random.integers(1, 6)), str(number)])
        for number in range(count)
    ]


@pytest.fixture
async def here(served: Path) -> AsyncIterator[AsyncClient]:
    """A client of a gateway that runs the towers itself, in float32."""
    settings = local(repository=served, precision="fp32", max_inputs=512)
    async with gateway(settings) as running, AsyncClient(running.address) as client:
        yield client


@pytest.fixture
async def there(triton: TritonServer, served: Path) -> AsyncIterator[AsyncClient]:
    """A client of a gateway that leaves that to Triton."""
    settings = local(repository=served, engine=f"triton://{triton.address}", max_inputs=512)
    async with gateway(settings) as running, AsyncClient(running.address) as client:
        yield client


async def vectors(client: AsyncClient, inputs: Sequence[Input]) -> Vectors:
    cuts = range(0, len(inputs), AT_ONCE)
    return np.concatenate([(await client.embed(inputs[c : c + AT_ONCE])).vectors for c in cuts])


@pytest.mark.parametrize("inputs", [pictures(200), captions(500)], ids=["200 images", "500 texts"])
async def test_embed_gives_the_same_vectors_with_either_engine(
    inputs: Sequence[Input], here: AsyncClient, there: AsyncClient
) -> None:
    ours, theirs = await vectors(here, inputs), await vectors(there, inputs)
    assert len(ours) == len(theirs) == len(inputs)
    assert np.einsum("nd,nd->n", ours, theirs).min() >= 0.99999


async def test_score_gives_the_same_scores_with_either_engine(
    here: AsyncClient, there: AsyncClient
) -> None:
    images, texts = pictures(200), captions(500)
    measures: list[tuple[MeasureName, float]] = [("cosine", 1e-4), ("softmax", 1e-3)]
    for measure, tolerance in measures:
        ours = (await here.score(images, texts, measure=measure)).scores
        theirs = (await there.score(images, texts, measure=measure)).scores
        assert ours.shape == (200, 500)
        np.testing.assert_allclose(ours, theirs, atol=tolerance)


async def test_a_gateway_with_another_space_than_triton_does_not_start(
    triton: TritonServer, files: ModelFiles, served: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(served, tmp_path / "root")
    image = files.spec.image.model_copy(update={"resize": "squash"})
    graphs = files.graphs[Tower.IMAGE], files.graphs[Tower.TEXT]
    print_ = repository.fingerprint(*graphs, files.tokenizer, image, files.spec.text)
    spec = files.spec.model_copy(update={"image": image, "fingerprint": print_})
    for folder in spec.folders.values():
        (root / folder / "1" / "spec.json").write_text(json.dumps(spec.model_dump(mode="json")))
    expected = f"its fingerprint is {files.spec.fingerprint[:12]}…, the gateway's repository has"
    with pytest.raises(BadRepository, match=expected):
        async with gateway(local(repository=root, engine=f"triton://{triton.address}")):
            pytest.fail("served")
