"""Checkpoints open elsewhere, and answer there as they did in training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPModel, CLIPProcessor, SiglipConfig, SiglipModel

from diptych.contract import ImageSpec, TextSpec
from diptych_export import layouts
from diptych_export.data import shapes
from diptych_export.data.batches import Batch
from diptych_export.data.scene_chunks import SceneChunks
from diptych_export.errors import BadRun
from diptych_export.learner import Learner
from diptych_export.sources.opening import open_source
from diptych_export.starting import begun, learned_tokenizer, taken_up, tokenizer_for, understood

TEXTS = shapes.texts(0, 500)


def siglip(folder: Path) -> str:
    both: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = SiglipConfig(
        text_config=both
        | {"vocab_size": 600, "max_position_embeddings": 24}
        | dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
        vision_config=both | {"image_size": 32, "patch_size": 16},
    )
    folder.mkdir()
    config.to_json_file(folder / "config.json")
    return str(folder)


def learner(model: str, score: Any = "auto") -> Learner:
    plan = understood(model)
    torch.manual_seed(0)
    found = begun(plan, learned_tokenizer(plan, TEXTS), score)
    if hasattr(found.model, "vision_model"):  # batch norms that have seen something
        found.encode(found.chunk(batch(found)), torch.device("cpu"), bf16=False)
    found.model.eval()
    return found


def batch(learner: Learner) -> Batch:
    return next(SceneChunks(6, 0, side_px=learner.image.size, alone=0))


@torch.inference_mode()
def vectors(learner: Learner) -> tuple[Tensor, Tensor]:
    return learner.encode(learner.chunk(batch(learner)), torch.device("cpu"), bf16=False)


@torch.inference_mode()
def vectors_of_source(folder: Path, learner: Learner) -> tuple[Tensor, Tensor]:
    """As the exporter reads the checkpoint."""
    source = open_source(str(folder))
    assert source.image == learner.image
    assert source.text == learner.text
    assert source.score == learner.score
    chunk = learner.chunk(batch(learner))
    images = source.image_tower(torch.from_numpy(chunk.pixels))[0]
    texts = source.text_tower(torch.from_numpy(chunk.ids))[0]
    return normalize(images, dim=-1), normalize(texts, dim=-1)


@pytest.mark.parametrize(
    ("model", "score"),
    [("tiny", "softmax"), ("tiny", "sigmoid"), ("shapes", "softmax"), ("siglip", "auto")],
)
def test_the_exporter_reads_every_kind_of_checkpoint_and_answers_alike(
    model: str, score: str, tmp_path: Path
) -> None:
    trained = learner(siglip(tmp_path / "config") if model == "siglip" else model, score)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    layouts.write(trained, folder)
    assert not list(folder.glob("*.bin"))
    for found, expected in zip(vectors_of_source(folder, trained), vectors(trained), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_clip_checkpoint_opens_in_transformers_and_answers_alike(tmp_path: Path) -> None:
    trained = learner("tiny")
    layouts.write(trained, tmp_path)
    opened = CLIPModel.from_pretrained(tmp_path, use_safetensors=True)
    reader = CLIPProcessor.from_pretrained(tmp_path)
    scenes = batch(trained)
    inputs = reader(
        text=scenes.texts,
        images=list(scenes.pixels),
        padding=True,
        truncation=True,
        return_tensors="pt",
    )
    assert np.array_equal(inputs.input_ids, trained.chunk(scenes).ids)
    with torch.inference_mode():
        images, texts = vectors(trained)
        expected = trained.model.logit_scale.exp() * images @ texts.T
        torch.testing.assert_close(opened(**inputs).logits_per_image, expected)


def test_beside_every_checkpoint_lies_its_spec(tmp_path: Path) -> None:
    trained = learner("tiny", "sigmoid")
    layouts.write(trained, tmp_path)
    spec = json.loads((tmp_path / "spec.json").read_text())
    assert ImageSpec(**spec["image"]) == trained.image
    assert TextSpec(**spec["text"]) == trained.text
    assert spec["score"] == "sigmoid"
    assert (spec["logit_scale"], spec["logit_bias"]) == (pytest.approx(10.0), -10.0)


def test_training_goes_on_from_the_weights_of_a_checkpoint(tmp_path: Path) -> None:
    trained = learner("tiny")
    layouts.write(trained, tmp_path)
    again = taken_up(tmp_path)
    assert again.model.training
    again.model.eval()
    for found, expected in zip(vectors(again), vectors(trained), strict=True):
        torch.testing.assert_close(found, expected)


def test_siglips_towers_begin_where_their_paper_says(tmp_path: Path) -> None:
    trained = learner(siglip(tmp_path / "config"))
    assert isinstance(trained.model, SiglipModel)
    assert trained.score == "sigmoid"
    assert trained.model.logit_scale.exp().item() == pytest.approx(10.0)
    assert trained.model.logit_bias.item() == -10.0
    assert trained.text.padding == "max_length"
    assert trained.chunk(batch(trained)).ids.shape[1] == 24
    assert trained.image.resize == "squash"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "neither shapes, tiny, .* nor a folder"),
        ({"model_type": "bert"}, "model_type bert, not clip or siglip"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_name(
    config: dict[str, str] | None, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    if config:
        path.write_text(json.dumps(config))
    with pytest.raises(BadRun, match=said):
        understood(str(path))


def test_loss_and_tokenizer_must_fit_the_towers(tmp_path: Path) -> None:
    plan = understood(siglip(tmp_path / "config"))
    tokenizer = learned_tokenizer(plan, TEXTS)
    with pytest.raises(BadRun, match="scored by sigmoid"):
        begun(plan, tokenizer, "softmax")
    with pytest.raises(BadRun, match=r"no tokenizer_config\.json"):
        tokenizer_for(plan, tmp_path)
