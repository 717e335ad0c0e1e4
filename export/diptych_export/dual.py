"""Two towers as one nn.Module: transformers' CLIP classes, from a preset or from a checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from diptych.contract import Triple

# Of OpenAI's training pictures; every CLIP since has kept them (openai/CLIP, clip/clip.py).
MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)
STD: Triple = (0.26862954, 0.26130258, 0.27577711)

_POSITION = 0.2  # amplitude of patch positions at the start, near that of embedded patches


@dataclass(frozen=True, slots=True)
class Preset:
    """The size of two towers; everything else about them is CLIP's."""

    image_size: int  # S, pixels per side
    patch_size: int  # pixels per side
    image_width: int
    image_layers: int
    text_width: int
    text_layers: int
    mlp_ratio: int
    head_width: int
    context_length: int  # L
    embed_dim: int  # D


PRESETS: dict[str, Preset] = {
    "shapes": Preset(
        image_size=64,
        patch_size=8,
        image_width=128,
        image_layers=4,
        text_width=128,
        text_layers=3,
        mlp_ratio=2,
        head_width=32,
        context_length=32,
        embed_dim=96,
    ),
}


def new(preset: Preset, tokenizer: CLIPTokenizer, seed: int) -> CLIPModel:
    """Freshly initialised towers for the ids of `tokenizer`; the same seed, the same weights."""
    torch.manual_seed(seed)
    model = CLIPModel(_config(preset, tokenizer))
    _place_patches(model.vision_model.embeddings.position_embedding.weight)
    return model


def unit_images(model: CLIPModel, pixels: Tensor) -> Tensor:
    """uint8 [B, S, S, 3] to unit vectors [B, D]."""
    features = model.get_image_features(pixel_values=normalised(pixels))
    return nn.functional.normalize(features.pooler_output, dim=-1)


def unit_texts(model: CLIPModel, ids: Tensor) -> Tensor:
    """int64 [B, L'], padded behind the end token, to unit vectors [B, D]."""
    return nn.functional.normalize(model.get_text_features(input_ids=ids).pooler_output, dim=-1)


def normalised(
    pixels: Tensor, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD
) -> Tensor:
    """uint8 [B, S, S, 3] to float32 [B, 3, S, S], as CLIP's image processor scales them."""
    scale = torch.tensor(std, dtype=torch.float32) * 255
    offset = torch.tensor(mean, dtype=torch.float32) * 255
    return ((pixels.float() - offset) / scale).permute(0, 3, 1, 2)


def _place_patches(weight: Tensor) -> None:
    """Start patch positions, rows 1 to P² of `weight`, as sines of their row and column.

    Still trained, but small towers find out where things are much sooner than from noise:
    Beyer et al., "Better plain ViT baselines for ImageNet-1k", 2022 (arXiv:2205.01580).
    """
    patches, width = weight.shape[0] - 1, weight.shape[1]
    rows, columns = torch.meshgrid(*2 * [torch.arange(math.isqrt(patches))], indexing="ij")
    waves = 10_000 ** -(torch.arange(width // 4) / (width // 4))
    angles = [axis.flatten()[:, None] * waves for axis in (columns, rows)]
    with torch.no_grad():
        sines = torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1)
        weight[1:] = _POSITION * sines


def _config(preset: Preset, tokenizer: CLIPTokenizer) -> CLIPConfig:
    text = {
        **_transformer(preset, preset.text_width, preset.text_layers),
        "vocab_size": len(tokenizer),
        "max_position_embeddings": preset.context_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        **_transformer(preset, preset.image_width, preset.image_layers),
        "image_size": preset.image_size,
        "patch_size": preset.patch_size,
    }
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=preset.embed_dim)


def _transformer(preset: Preset, width: int, layers: int) -> dict[str, int | str]:
    return {
        "hidden_size": width,
        "intermediate_size": width * preset.mlp_ratio,
        "num_hidden_layers": layers,
        "num_attention_heads": width // preset.head_width,
        "projection_dim": preset.embed_dim,
        "hidden_act": "gelu",
    }
