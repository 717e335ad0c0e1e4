"""Towers in, their weights under OpenAI's names out: the way back of `sources.convert`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diptych_export.presets import ResNetClip
from diptych_export.sources.convert import BLOCK, TEXT, VISION

_LAYERS = "encoder.layers."


def weights(model: Any) -> dict[str, Tensor]:
    """Of a `ResNetClip` or a `CLIPModel`, which may have a bias beside its scale."""
    if isinstance(model, ResNetClip):
        text, projection = model.text.text_model, model.text.text_projection
        found = {f"visual.{name}": value for name, value in model.vision_model.state_dict().items()}
    else:
        text, projection = model.text_model, model.text_projection
        vision = _tower(model.vision_model, VISION)
        found = {f"visual.{name}": value for name, value in vision.items()}
        found["visual.proj"] = model.visual_projection.weight.T
    found |= _tower(text, TEXT)
    found["text_projection"] = projection.weight.T
    for name in ("logit_scale", "logit_bias"):
        if hasattr(model, name):
            found[name] = getattr(model, name)
    return {name: value.detach().contiguous() for name, value in found.items()}


def _tower(tower: Any, top: Mapping[str, str]) -> dict[str, Tensor]:
    theirs = {ours: name for name, ours in top.items()}
    blocks = {ours: name for name, ours in BLOCK.items()}
    state, found = tower.state_dict(), dict[str, Tensor]()
    for name, value in state.items():
        if not name.startswith(_LAYERS):
            found[theirs[name]] = value
            continue
        number, inside = name.removeprefix(_LAYERS).split(".", 1)
        stem, _, kind = inside.rpartition(".")
        place = f"transformer.resblocks.{number}"
        if stem in blocks:
            found[f"{place}.{blocks[stem]}.{kind}"] = value
        elif stem == "self_attn.q_proj":  # queries, keys and values lie above each other
            parts = [state[f"{_LAYERS}{number}.self_attn.{x}_proj.{kind}"] for x in "qkv"]
            found[f"{place}.attn.in_proj_{kind}"] = torch.cat(parts)
    return found
