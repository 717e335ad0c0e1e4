"""Checkpoints that transformers wrote answer here as they do there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CLIPModel

from diptych.contract import canary_tokens
from diptych_export.build import build
from diptych_export.errors import ParityError
from diptych_export.sources.opening import open_source
from tests.export.sources import directories
from tests.export.sources.comparing import check, in_torch

Directory = Callable[[str], Path]


@pytest.mark.parametrize("family", directories.FAMILIES)
def test_every_output_is_the_librarys(directory: Directory, family: str) -> None:
    source = open_source(str(directory(family)))
    check(source, in_torch(source))


def test_our_own_checkpoints_are_such_directories(directory: Directory) -> None:
    """What CLIPModel.from_pretrained opens is opened, whoever wrote it."""
    source = open_source(str(directory("clip by id")))
    own = CLIPModel.from_pretrained(directory("clip by id"))
    assert source.numbers["logit_scale"] == pytest.approx(own.logit_scale.exp().item())
    assert source.numbers["embed_dim"] == own.config.projection_dim
    assert source.origin == "clip clip-by-id"


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("clip", {"padding": "longest", "attention_mask": False, "context_length": 24}),
        ("metaclip 2", {"padding": "longest", "start_id": 0, "end_id": 2, "pad_id": 1}),
        ("siglip", {"padding": "max_length", "cleaning": "siglip", "pad_id": 1, "end_id": 1}),
        ("siglip", {"attention_mask": False, "context_length": 16, "start_id": None}),
        ("siglip masked", {"attention_mask": True}),
        ("siglip 2", {"padding": "max_length", "cleaning": "none", "pad_id": 0, "end_id": 1}),
        ("chinese clip", {"padding": "longest", "attention_mask": True, "context_length": 24}),
        # RoBERTa's places begin behind the padding's: of 26 there are 24 for tokens.
        ("altclip", {"padding": "longest", "attention_mask": True, "context_length": 24}),
        # Its processor pads to 64, its positions go to 128.
        ("align", {"padding": "longest", "attention_mask": True, "context_length": 64}),
    ],
)
def test_rules_of_texts_are_the_checkpoints(
    directory: Directory, family: str, expected: dict[str, Any]
) -> None:
    rules = open_source(str(directory(family))).text.model_dump()
    assert {name: rules[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("clip", {"resize": "shortest", "resize_to": 52, "size": 48, "interpolation": "bicubic"}),
        ("siglip", {"resize": "squash", "resize_to": 48, "size": 48, "interpolation": "bilinear"}),
        ("chinese clip", {"resize": "squash", "resize_to": 48, "size": 48}),
        # Rescaled to -1..1 and not normalised, which comes to the same.
        ("align", {"resize": "squash", "resize_to": 72, "size": 64, "mean": (0.5, 0.5, 0.5)}),
    ],
)
def test_rules_of_pictures_are_the_checkpoints(
    directory: Directory, family: str, expected: dict[str, Any]
) -> None:
    rules = open_source(str(directory(family))).image.model_dump()
    assert {name: rules[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("family", "score", "scale", "bias"),
    [
        ("clip", "softmax", np.exp(2.5), 0.0),
        ("siglip", "sigmoid", np.exp(2.5), -7.5),
        ("align", "softmax", 20.0, 0.0),  # of a temperature of 0.05
    ],
)
def test_scores_are_the_checkpoints(
    directory: Directory, family: str, score: str, scale: float, bias: float
) -> None:
    source = open_source(str(directory(family)))
    assert source.score == score
    assert source.numbers["logit_scale"] == pytest.approx(scale)
    assert source.numbers["logit_bias"] == pytest.approx(bias)


def test_outputs_are_what_the_towers_have(directory: Directory) -> None:
    align = open_source(str(directory("align")))
    assert align.image_tower.outputs == ("image_embeds",)  # no transformer
    assert align.numbers["image_hidden_size"] is None
    altclip = open_source(str(directory("altclip")))
    assert "penultimate_hidden_state" not in altclip.text_tower.outputs  # of another width
    assert altclip.numbers["text_hidden_size"] == 20


def test_the_gate_notices_a_wrong_padding_rule(directory: Directory, tmp_path: Path) -> None:
    """SigLIP learned with padding to the end and reads texts off there."""
    source = open_source(str(directory("siglip")))
    spoilt = source.text.model_copy(update={"padding": "longest"})
    with pytest.raises(ParityError, match=r"text\.text_embeds"):
        build(replace(source, text=spoilt), "siglip", tmp_path / "repository")
    assert not list((tmp_path / "repository").glob("siglip*"))


def test_the_canary_is_the_librarys_answer(directory: Directory) -> None:
    for family in ("clip", "siglip", "align"):
        source = open_source(str(directory(family)))
        canary = source.reference.canary(source.image, source.text)
        assert np.linalg.norm(canary.image) == pytest.approx(1, abs=1e-5)
        ids = torch.from_numpy(canary_tokens(source.text))[None]
        if source.text.padding == "max_length":
            missing = source.text.context_length - ids.shape[1]
            ids = torch.nn.functional.pad(ids, (0, missing), value=source.text.pad_id)
        masks = (torch.ones_like(ids),) if source.text.attention_mask else ()
        with torch.inference_mode():
            vector = source.text_tower(ids, *masks)[0][0].numpy()
        np.testing.assert_allclose(vector / np.linalg.norm(vector), canary.text, atol=1e-5)


def test_a_licence_comes_from_the_card_unless_told(directory: Directory, tmp_path: Path) -> None:
    folder = shutil.copytree(directory("clip"), tmp_path / "clip")
    assert open_source(str(folder)).licence == "unknown"
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    assert open_source(str(folder)).licence == "apache-2.0"
    assert open_source(str(folder), licence="MIT").licence == "MIT"


def test_older_checkpoints_keep_their_settings_in_a_file_of_their_own(
    directory: Directory, tmp_path: Path
) -> None:
    """As on the hub since 2021: sizes as bare numbers, counters among the weights."""
    folder = shutil.copytree(directory("clip"), tmp_path / "clip")
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    settings |= {"size": 52, "crop_size": 48, "feature_extractor_type": "CLIPFeatureExtractor"}
    del settings["image_processor_type"]
    path.write_text(json.dumps(settings))
    source = open_source(str(folder))
    assert (source.image.resize_to, source.image.size) == (52, 48)
