"""Every kind of checkpoint is built, passes the gate, is served, and answers as it did at home."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from diptych import repository
from diptych.contract import ModelSpec, Tower
from diptych.wire import Options
from diptych_export.parity import MIN_COSINE, Precision, lowest_cosine
from diptych_export.sources.base import Array
from diptych_export.sources.opening import open_source
from tests.export.sources import archives
from tests.export.sources.answers import image_vectors, text_vectors
from tests.export.sources.building import built
from tests.export.sources.comparing import PICTURES
from tests.export.sources.published import CLIP
from tests.export.sources.vocabularies import TEXTS
from tests.serving import served

Directory = Callable[[str], Path]
Answers = tuple[Array, Array]  # vectors of PICTURES and of TEXTS, as the source library makes them

AS_REFERENCE = Options(truncate=True, exif=False)  # what the reference implementations do


def in_transformers(folder: Path) -> Answers:
    """Through transformers' own processor, tokenizer and model."""
    reference = open_source(str(folder)).reference
    images = [reference.image(picture)["image_embeds"] for picture in PICTURES]
    return np.stack(images), np.stack([reference.text(text)["text_embeds"] for text in TEXTS])


def in_published(model: CLIP, where: Path) -> Answers:
    """Through modules built as OpenAI built theirs."""
    spec = open_source(str(where)).image
    return image_vectors(model, PICTURES, spec), text_vectors(model, TEXTS)


async def check_served(root: Path, right: Answers, precision: Precision = "fp32") -> None:
    """A gateway's answers over gRPC, from the bytes and strings themselves."""
    runs_in = "fp32" if precision == "fp32" else "auto"
    async with served(repository=root, precision=runs_in) as client:
        reply = await client.embed([*PICTURES, *TEXTS], AS_REFERENCE)
    vectors = np.split(reply.vectors, [len(PICTURES)])
    for ours, theirs in zip(vectors, right, strict=True):
        assert min(map(lowest_cosine, ours, theirs)) >= MIN_COSINE[precision]


def check_spec(found: dict[str, object], root: Path) -> ModelSpec:
    """What was printed is what was published."""
    spec = repository.load(root, str(found["model"])).spec
    assert found["fingerprint"] == spec.fingerprint
    assert found["parity"] == spec.parity
    outputs = [figure for name, figure in spec.parity.items() if "." in name]
    assert min(outputs) >= MIN_COSINE["fp32"]
    return spec


@pytest.mark.parametrize(
    "family", ["clip", "siglip", "siglip 2", "align", "chinese clip", "altclip", "metaclip 2"]
)
async def test_what_transformers_wrote(
    directory: Directory, family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = directory(family)
    found = built(capsys, "--from", folder, "--name", "own", "--repository", tmp_path)
    check_spec(found, tmp_path)
    await check_served(tmp_path, in_transformers(folder))


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
async def test_in_every_precision(
    directory: Directory,
    precision: Precision,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = directory("siglip")
    found = built(
        capsys,
        *("--from", folder, "--name", "own", "--repository", tmp_path, "--precision", precision),
        *(["--calibrate", "shapes"] if precision == "int8" else []),
    )
    files = repository.load(tmp_path, "own")
    assert files.spec.precision == precision
    assert sum(found["bytes"].values()) == sum(g.stat().st_size for g in files.graphs.values())
    await check_served(tmp_path, in_transformers(folder), precision)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
async def test_what_openai_published(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = CLIP({"vit": archives.VIT, "resnet": archives.RESNET}[kind])
    archives.merges_file(tmp_path)
    path = archives.torchscript(tmp_path / f"{kind}.pt", model)
    root = tmp_path / "repository"
    found = built(capsys, "--from", path, "--name", kind, "--repository", root)
    spec = check_spec(found, root)
    assert (spec.image_hidden_size is None) == (kind == "resnet")
    await check_served(root, in_published(model, path))


async def test_what_openclip_pushed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = archives.openclip(tmp_path / "from")
    root = tmp_path / "repository"
    found = built(capsys, "--from", tmp_path / "from", "--name", "vit", "--repository", root)
    check_spec(found, root)
    await check_served(root, in_published(model, tmp_path / "from"))


async def test_siglip_scores_by_sigmoid_with_its_bias_and_pads_to_64(
    directory: Directory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = directory("siglip of 64")
    found = built(capsys, "--from", folder, "--name", "siglip", "--repository", tmp_path)
    spec = check_spec(found, tmp_path)
    assert (spec.score, spec.logit_bias) == ("sigmoid", -7.5)

    path = repository.load(tmp_path, "siglip").graphs[Tower.TEXT]
    [tokens] = onnx.load(path).graph.input
    assert [dim.dim_value for dim in tokens.type.tensor_type.shape.dim][1:] == [64]

    right = in_transformers(folder)
    images, texts = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in right)
    async with served(repository=tmp_path, precision="fp32") as client:
        reply = await client.score(PICTURES, TEXTS, options=AS_REFERENCE, measure="sigmoid")
    logits = images @ texts.T * np.exp(2.5) - 7.5
    np.testing.assert_allclose(reply.scores, 1 / (1 + np.exp(-logits)), rtol=1e-3)
