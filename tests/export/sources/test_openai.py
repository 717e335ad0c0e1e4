"""OpenAI's .pt files, read without running them, answer as OpenAI's code would."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from diptych_export.sources import openai, weights
from diptych_export.sources.opening import open_source
from tests.export.sources import archives
from tests.export.sources.answers import image_vectors, text_vectors
from tests.export.sources.comparing import (
    PICTURES,
    check,
    in_torch,
)
from tests.export.sources.directories import clip_tokenizer
from tests.export.sources.published import CLIP, Size
from tests.export.sources.vocabularies import TEXTS

SIZES = {"vit": archives.VIT, "resnet": archives.RESNET}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `.pt` of either kind, a TorchScript archive of either, and their merges."""
    folder = tmp_path_factory.mktemp("openai")
    archives.merges_file(folder)
    for name, size in SIZES.items():
        archives.state_dict(folder / f"{name}.pt", CLIP(size))
        archives.torchscript(folder / f"{name}-jit.pt", CLIP(size))
    return folder


@pytest.mark.parametrize("name", ["vit", "resnet", "vit-jit", "resnet-jit"])
def test_every_output_is_that_of_the_published_arithmetic(folder: Path, name: str) -> None:
    source = open_source(str(folder / f"{name}.pt"))
    check(source, in_torch(source))


@pytest.mark.parametrize("name", SIZES)
def test_the_gates_other_side_is_openais(folder: Path, name: str) -> None:
    """The arithmetic told again agrees with modules built as OpenAI built theirs."""
    source = open_source(str(folder / f"{name}-jit.pt"))
    model = CLIP(SIZES[name])
    ours = np.stack([source.reference.image(file)["image_embeds"] for file in PICTURES])
    theirs = image_vectors(model, PICTURES, source.image)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    ours = np.stack([source.reference.text(text)["text_embeds"] for text in TEXTS])
    np.testing.assert_allclose(ours, text_vectors(model, TEXTS), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", SIZES)
def test_an_archive_gives_the_weights_of_its_model(folder: Path, name: str) -> None:
    """Names and numbers as `state_dict()` gives them, and the three facts beside them."""
    read = weights.read_archive(folder / f"{name}-jit.pt")
    expected = CLIP(SIZES[name]).state_dict()
    assert set(read) == {*expected, "input_resolution", "context_length", "vocab_size"}
    assert all(torch.equal(read[key], value) for key, value in expected.items())


def test_rules_are_openais(folder: Path) -> None:
    source = open_source(str(folder / "vit.pt"))
    assert source.text.cleaning == "openai"
    assert source.text.pad_id == 0
    assert (source.text.context_length, source.text.vocabulary) == (24, archives.VOCABULARY)
    assert (source.text.start_id, source.text.end_id) == (
        archives.VOCABULARY - 2,
        archives.VOCABULARY - 1,
    )
    assert source.image.model_dump() == openai.image_spec(48).model_dump()
    assert source.score == "softmax"
    assert source.numbers["logit_scale"] == pytest.approx(np.exp(3))


def test_a_resnet_has_no_hidden_states(folder: Path) -> None:
    source = open_source(str(folder / "resnet.pt"))
    assert source.image_tower.outputs == ("image_embeds",)
    assert source.numbers["image_hidden_size"] is None
    assert source.image.size == 64


def test_the_tokenizer_may_be_transformers(folder: Path, tmp_path: Path) -> None:
    """tokenizer.json of a CLIP on the hub holds the same merges."""
    shutil.copy(folder / "vit.pt", tmp_path)
    clip_tokenizer().save_pretrained(tmp_path)
    source = open_source(str(tmp_path / "vit.pt"))
    assert source.tokenizer_json == open_source(str(folder / "vit.pt")).tokenizer_json


def test_a_published_file_is_known_by_its_digest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = weights.digest(folder / "vit.pt")
    monkeypatch.setitem(openai.PUBLISHED, "vit.pt", known)
    source = open_source(str(folder / "vit.pt"))
    assert source.origin == f"OpenAI vit, SHA-256 {known}"
    assert source.licence == "MIT"


def test_other_files_of_that_layout_have_no_licence_of_openais(folder: Path) -> None:
    source = open_source(str(folder / "vit.pt"))
    assert source.licence == "unknown"
    assert open_source(str(folder / "vit.pt"), licence="CC0-1.0").licence == "CC0-1.0"


def test_all_nine_digests_are_there() -> None:
    assert len(openai.PUBLISHED) == 9
    assert all(len(digest) == 64 for digest in openai.PUBLISHED.values())


def test_heads_are_64_wide() -> None:
    """No checkpoint says so; `build_model` does."""
    assert SIZES["vit"].image_heads == Size(1).image_width // 64
