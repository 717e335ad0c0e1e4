"""Two towers in; the sizes of what they make out, found by asking them once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diptych.contract import ImageSpec, TextSpec, Tower, canary_pixels, canary_tokens
from diptych.preprocess.text import pad_tokens
from diptych_export.errors import BadCheckpoint
from diptych_export.graph import (
    IMAGE_EMBEDS,
    PENULTIMATE,
    TEXT_EMBEDS,
    ImageTower,
    TextTower,
)


def numbers(
    where: str, image_tower: ImageTower, text_tower: TextTower, image: ImageSpec, text: TextSpec
) -> dict[str, Any]:
    """`embed_dim`, `image_hidden_size` and `text_hidden_size` of two towers.

    Raises:
        BadCheckpoint: an answer is not finite, or the towers do not share one space.
    """
    ids, mask = pad_tokens([canary_tokens(text)], text)
    tokens = (ids, mask) if text.attention_mask else (ids,)
    answers = {
        Tower.IMAGE: _ask(image_tower, torch.from_numpy(canary_pixels(image))[None]),
        Tower.TEXT: _ask(text_tower, *map(torch.from_numpy, tokens)),
    }
    for tower, answer in answers.items():
        for name, values in answer.items():
            if not bool(torch.isfinite(values).all()):
                raise BadCheckpoint(f"{where}: {tower} tower: {name} is not finite")
    image_dim = answers[Tower.IMAGE][IMAGE_EMBEDS].shape[-1]
    text_dim = answers[Tower.TEXT][TEXT_EMBEDS].shape[-1]
    if image_dim != text_dim:
        raise BadCheckpoint(f"{where}: images become {image_dim} numbers, texts {text_dim}")
    states = answers[Tower.IMAGE].get(PENULTIMATE)
    return {
        "embed_dim": image_dim,
        "image_hidden_size": None if states is None else states.shape[-1],
        "text_hidden_size": answers[Tower.TEXT]["last_hidden_state"].shape[-1],
    }


@torch.inference_mode()
def _ask(tower: ImageTower | TextTower, *inputs: Tensor) -> dict[str, Tensor]:
    return dict(zip(tower.outputs, tower(*inputs), strict=True))
