"""OpenAI's CLIP in numbers: what its checkpoints and OpenCLIP's share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import Tensor
from transformers import CLIPTextConfig, CLIPVisionConfig

from diptych_export.resnet import REDUCTION, ResNetSize

Activation: TypeAlias = Literal["quick_gelu", "gelu"]

HEAD_WIDTH = 64  # of every attention in OpenAI's: `build_model` of openai/CLIP, clip/model.py
ARGMAX_END = 2  # as `eos_token_id`, makes CLIPTextModel read a text off at its highest id


@dataclass(frozen=True, slots=True)
class Stack:
    """One transformer."""

    width: int
    layers: int
    heads: int
    mlp_width: int
    epsilon: float = 1e-5  # of its norms


@dataclass(frozen=True, slots=True)
class Vision:
    """A ViT image tower."""

    stack: Stack
    image_size: int  # S, pixels per side
    patch_size: int  # pixels per side


@dataclass(frozen=True, slots=True)
class Architecture:
    """Both towers."""

    vision: Vision | ResNetSize
    text: Stack
    context_length: int  # L
    vocabulary: int
    embed_dim: int  # D
    activation: Activation  # of both transformers

    @property
    def image_size(self) -> int:
        return self.vision.image_size

    def vision_config(self, vision: Vision) -> CLIPVisionConfig:
        return CLIPVisionConfig(
            **_stack(vision.stack),
            image_size=vision.image_size,
            patch_size=vision.patch_size,
            projection_dim=self.embed_dim,
            hidden_act=self.activation,
        )

    def text_config(self) -> CLIPTextConfig:
        return CLIPTextConfig(
            **_stack(self.text),
            vocab_size=self.vocabulary,
            max_position_embeddings=self.context_length,
            projection_dim=self.embed_dim,
            hidden_act=self.activation,
            eos_token_id=ARGMAX_END,
            bos_token_id=None,
            pad_token_id=None,
        )


def from_shapes(state: Mapping[str, Tensor]) -> Architecture:
    """The architecture of a checkpoint of OpenAI's: `build_model` of openai/CLIP, clip/model.py.

    Raises:
        KeyError: a weight that says how large the model is, is missing.
    """
    width = len(state["ln_final.weight"])
    return Architecture(
        vision=_resnet(state) if "visual.proj" not in state else _vision(state),
        text=_square(width, _count(state, "transformer.resblocks.")),
        context_length=len(state["positional_embedding"]),
        vocabulary=len(state["token_embedding.weight"]),
        embed_dim=state["text_projection"].shape[1],
        activation="quick_gelu",
    )


def _vision(state: Mapping[str, Tensor]) -> Vision:
    width, _, _, patch = state["visual.conv1.weight"].shape
    grid = round((len(state["visual.positional_embedding"]) - 1) ** 0.5)
    stack = _square(width, _count(state, "visual.transformer.resblocks."))
    return Vision(stack=stack, image_size=grid * patch, patch_size=patch)


def _resnet(state: Mapping[str, Tensor]) -> ResNetSize:
    first, second, third, fourth = (_count(state, f"visual.layer{n}.") for n in range(1, 5))
    places = len(state["visual.attnpool.positional_embedding"]) - 1
    return ResNetSize(
        layers=(first, second, third, fourth),
        width=len(state["visual.layer1.0.conv1.weight"]),
        image_size=round(places**0.5) * REDUCTION,
        embed_dim=state["text_projection"].shape[1],
    )


def _square(width: int, layers: int) -> Stack:
    return Stack(width=width, layers=layers, heads=width // HEAD_WIDTH, mlp_width=4 * width)


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered modules lie under `prefix`."""
    return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)})


def _stack(stack: Stack) -> dict[str, Any]:
    return {
        "hidden_size": stack.width,
        "num_hidden_layers": stack.layers,
        "num_attention_heads": stack.heads,
        "intermediate_size": stack.mlp_width,
        "layer_norm_eps": stack.epsilon,
    }
