"""Presets are the sizes they are named after."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diptych_export.presets import PRESETS, fresh


class Words:
    """As large a vocabulary as a preset has at most; towers ask for no more of a tokenizer."""

    bos_token_id, eos_token_id, pad_token_id = 49_406, 49_407, 49_407

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count


def built(name: str) -> Any:
    """Shapes without numbers: the large ones would take gigabytes."""
    with torch.device("meta"):
        return fresh(PRESETS[name], Words(PRESETS[name].vocabulary))


def millions(parameters: Any) -> float:
    return float(sum(parameter.numel() for parameter in parameters)) / 1e6


# Radford et al., 2021, §2.4: "a 63M-parameter 12-layer 512-wide model". The totals are those of
# the published checkpoints, counted over their weights.
@pytest.mark.parametrize(
    ("name", "total"), [("vit-b-32", 151.28), ("vit-l-14", 427.62), ("rn50", 102.01)]
)
def test_a_preset_has_as_many_parameters_as_the_published_model(name: str, total: float) -> None:
    assert millions(built(name).parameters()) == pytest.approx(total, abs=0.01)


def test_the_papers_text_tower_has_63_million() -> None:
    model = built("vit-b-32")
    assert millions(model.text_model.parameters()) == pytest.approx(63.0, abs=0.3)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_answers_with_vectors_of_its_size(name: str) -> None:
    whole, model = PRESETS[name], built(name)
    with torch.device("meta"):
        pixels = torch.empty(2, 3, whole.image_size, whole.image_size)
        ids = torch.ones(2, whole.context_length, dtype=torch.int64)
        images = model.get_image_features(pixel_values=pixels).pooler_output
        texts = model.get_text_features(input_ids=ids).pooler_output
    assert images.shape == texts.shape == (2, whole.embed_dim)
