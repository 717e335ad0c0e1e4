"""OpenCLIP's directories answer as open_clip would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from diptych_export.sources.base import Source
from diptych_export.sources.opening import open_source
from tests.export.sources import archives, directories
from tests.export.sources.answers import image_vectors, text_vectors
from tests.export.sources.comparing import (
    PICTURES,
    check,
    in_torch,
    refusal,
)
from tests.export.sources.published import CLIP, QuickGELU
from tests.export.sources.vocabularies import TEXTS

CASES: dict[str, dict[str, Any]] = {
    "gelu": {},
    "quick gelu": {"activation": QuickGELU},
    "resnet": {"size": archives.RESNET},
    "custom text": {"custom_text": True},
    "squashed": {
        "preprocess": archives.preprocess_cfg(
            archives.OPENCLIP,
            resize_mode="squash",
            interpolation="bilinear",
            mean=[0.5, 0.5, 0.5],
            std=[0.5, 0.5, 0.5],
        )
    },
    "older": {"preprocess": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}},
    "with a bias": {"extra": {"logit_bias": torch.tensor(-9.0)}},
}


@pytest.mark.parametrize("case", CASES)
def test_every_output_is_that_of_the_published_arithmetic(case: str, tmp_path: Path) -> None:
    archives.openclip(tmp_path, **CASES[case])
    source = open_source(str(tmp_path))
    check(source, in_torch(source))


@pytest.mark.parametrize("case", ["gelu", "quick gelu", "resnet", "custom text", "squashed"])
def test_the_gates_other_side_is_openclips(case: str, tmp_path: Path) -> None:
    model = archives.openclip(tmp_path, **CASES[case])
    source = open_source(str(tmp_path))
    ours = np.stack([source.reference.image(file)["image_embeds"] for file in PICTURES])
    theirs = image_vectors(model, PICTURES, source.image)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    ours = np.stack([source.reference.text(text)["text_embeds"] for text in TEXTS])
    np.testing.assert_allclose(ours, text_vectors(model, TEXTS), rtol=1e-3, atol=1e-4)


def test_the_activation_is_the_configs(tmp_path: Path) -> None:
    """The same weights with the other activation are another model."""
    archives.openclip(tmp_path)
    theirs = text_vectors(CLIP(archives.OPENCLIP, QuickGELU), TEXTS)
    source = open_source(str(tmp_path))
    ours = np.stack([source.reference.text(text)["text_embeds"] for text in TEXTS])
    assert not np.allclose(ours, theirs, rtol=1e-2)
    np.testing.assert_allclose(
        ours, text_vectors(CLIP(archives.OPENCLIP, nn.GELU), TEXTS), rtol=1e-3, atol=1e-4
    )


def test_pictures_are_treated_as_the_config_says(tmp_path: Path) -> None:
    def rules(case: str) -> dict[str, Any]:
        archives.openclip(tmp_path / case, **CASES[case])
        return open_source(str(tmp_path / case)).image.model_dump()

    assert rules("squashed") == rules("gelu") | {
        "resize": "squash",
        "interpolation": "bilinear",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    }
    older = rules("older")
    assert (older["mean"], older["std"]) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    # What such files leave out was not to be chosen then.
    assert (older["resize"], older["interpolation"]) == ("shortest", "bicubic")


def test_a_bias_means_sigmoid(tmp_path: Path) -> None:
    archives.openclip(tmp_path, **CASES["with a bias"])
    source = open_source(str(tmp_path))
    assert (source.score, source.numbers["logit_bias"]) == ("sigmoid", -9.0)


def test_where_two_layouts_lie_together_the_config_named_is_read(tmp_path: Path) -> None:
    """LAION's repositories hold transformers' layout beside OpenCLIP's."""
    archives.openclip(tmp_path)
    directories.clip(tmp_path)
    assert _origin(tmp_path).startswith("clip ")
    assert _origin(tmp_path / "open_clip_config.json").startswith("OpenCLIP ")


def test_the_licence_is_the_cards(tmp_path: Path) -> None:
    archives.openclip(tmp_path)
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: apple-amlr\n---\n")
    assert open_source(str(tmp_path)).licence == "apple-amlr"


@pytest.mark.parametrize(
    ("place", "changes", "complaint"),
    [
        ("vision_cfg", {"timm_model_name": "vit_base_patch16_siglip_224"}, "timm_model_name"),
        ("vision_cfg", {"attentional_pool": True}, "attentional_pool True"),
        ("vision_cfg", {"no_ln_pre": True}, "no_ln_pre True"),
        ("vision_cfg", {"something_new": 3}, "something_new 3"),
        ("vision_cfg", {"image_size": [48, 96]}, "image_size [48, 96] is no square"),
        ("text_cfg", {"hf_model_name": "xlm-roberta-base"}, "hf_model_name 'xlm-roberta-base'"),
        ("text_cfg", {"hf_tokenizer_name": "some/tokenizer"}, "hf_tokenizer_name"),
        ("text_cfg", {"no_causal_mask": True}, "no_causal_mask True"),
        ("text_cfg", {"pool_type": "last"}, "pool_type 'last'"),
        ("text_cfg", {"tokenizer_kwargs": {"clean": "canonicalize"}}, "tokenizer_kwargs"),
        (None, {"multimodal_cfg": {"width": 768}}, "multimodal_cfg"),
    ],
)
def test_towers_we_do_not_have_are_named(
    tmp_path: Path, place: str | None, changes: dict[str, Any], complaint: str
) -> None:
    archives.openclip(tmp_path)
    path = tmp_path / "open_clip_config.json"
    config = json.loads(path.read_text())
    section = config["model_cfg"][place] if place else config["model_cfg"]
    section.update(changes)
    path.write_text(json.dumps(config))
    assert complaint in refusal(tmp_path)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"mean": None}, "mean missing"),
        ({"std": [0.5]}, "std missing, or not three numbers"),
        ({"resize_mode": "longest"}, "resize_mode 'longest'"),
        ({"interpolation": "nearest"}, "interpolation 'nearest'"),
        ({"mode": "L"}, "mode 'L' is not RGB"),
    ],
)
def test_preprocessing_without_a_rule_of_ours_is_named(
    tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    archives.openclip(tmp_path, preprocess=archives.preprocess_cfg(archives.OPENCLIP, **changes))
    assert complaint in refusal(tmp_path)


def _origin(path: Path) -> str:
    source: Source = open_source(str(path))
    return source.origin
