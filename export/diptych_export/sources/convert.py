"""OpenAI's names of weights in, transformers' modules with those weights out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from diptych_export.resnet import ModifiedResNet, ResNetSize
from diptych_export.sources.architecture import Architecture
from diptych_export.sources.weights import one_line, refuse_names

# OpenAI's names of weights to transformers', within a tower and within a block of it.
VISION = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}
TEXT = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}

_VISUAL = "visual."
_BLOCKS = "transformer.resblocks."
_NUMBERS = ("logit_scale", "logit_bias")  # of the pair, not of a tower


def vision_tower(where: str, state: Mapping[str, Tensor], whole: Architecture) -> Any:
    """The image tower: a `CLIPVisionModelWithProjection` or our `ModifiedResNet`.

    Raises:
        BadCheckpoint: a weight is missing, left over, or of another shape.
    """
    own = {n.removeprefix(_VISUAL): w for n, w in state.items() if n.startswith(_VISUAL)}
    if isinstance(whole.vision, ResNetSize):
        return _filled(where, ModifiedResNet(whole.vision), own)
    names = _renamed(own, "vision_model", VISION, {"proj": "visual_projection.weight"})
    model: Any = CLIPVisionModelWithProjection(whole.vision_config(whole.vision))
    return _filled(where, model, names)


def text_tower(where: str, state: Mapping[str, Tensor], whole: Architecture) -> Any:
    """The text tower: a `CLIPTextModelWithProjection`.

    Raises:
        BadCheckpoint: as above.
    """
    own = {n: w for n, w in state.items() if not n.startswith(_VISUAL) and n not in _NUMBERS}
    projection = {"text_projection": "text_projection.weight"}
    names = _renamed(own, "text_model", TEXT, projection)
    model: Any = CLIPTextModelWithProjection(whole.text_config())
    return _filled(where, model, names)


def _renamed(
    state: Mapping[str, Tensor], model: str, top: Mapping[str, str], turned: Mapping[str, str]
) -> dict[str, Tensor]:
    """Names unknown to us stay, and are then left over. `turned` are stored [in, out]."""
    names: dict[str, Tensor] = {}
    for name, weights in state.items():
        if name.startswith(_BLOCKS):
            number, rest = name.removeprefix(_BLOCKS).split(".", 1)
            names |= _block(f"{model}.encoder.layers.{number}", rest, weights)
        elif name in turned:
            names[turned[name]] = weights.T.contiguous()
        else:
            names[f"{model}.{top[name]}" if name in top else name] = weights
    return names


def _block(place: str, name: str, weights: Tensor) -> dict[str, Tensor]:
    """One weight of a block; queries, keys and values are stored above each other."""
    stem, _, kind = name.rpartition(".")
    if stem == "attn" and kind.startswith("in_proj_"):
        kind = kind.removeprefix("in_proj_")
        parts = zip("qkv", weights.chunk(3), strict=True)
        return {f"{place}.self_attn.{letter}_proj.{kind}": part.clone() for letter, part in parts}
    return {f"{place}.{BLOCK.get(stem, stem)}.{kind}": weights}


def _filled(where: str, model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    with one_line(where):
        known = model.state_dict()
        for name in known.keys() & state.keys():
            if known[name].shape != state[name].shape:
                shapes = f"{list(state[name].shape)}, not {list(known[name].shape)}"
                refuse_names(where, "mismatched", [f"{name} is {shapes}"])
        refuse_names(where, "missing", sorted(known.keys() - state.keys()))
        refuse_names(where, "unexpected", sorted(state.keys() - known.keys()))
        model.load_state_dict(state)
    return model.eval()
