"""Two small towers and random pairs for them: what the gradient tests compute with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel

from diptych_export.caching import Chunk

SIZE, LENGTH, WORDS = 16, 6, 600


def towers(dropout: float = 0.0) -> CLIPModel:
    """The same weights at every call."""
    both: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "attention_dropout": dropout,
    }
    text = both | {
        "vocab_size": WORDS,
        "max_position_embeddings": LENGTH,
        "bos_token_id": WORDS - 2,
        "eos_token_id": WORDS - 1,
        "pad_token_id": 0,
    }
    vision = both | {"image_size": SIZE, "patch_size": 8}
    torch.manual_seed(0)
    model: CLIPModel = CLIPModel(
        CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    )
    # Deterministic pseudo-random embeddings spread apart, so that no gradient is near zero.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    model.train()
    return model


def chunk(pairs: int, seed: int) -> Chunk:
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, WORDS - 2, (pairs, LENGTH))
    ids[:, -1] = WORDS - 1
    return Chunk(rng.integers(0, 256, (pairs, SIZE, SIZE, 3)).astype(np.uint8), ids)


def joint(chunks: list[Chunk]) -> Chunk:
    pixels = np.concatenate([chunk.pixels for chunk in chunks])
    return Chunk(pixels, np.concatenate([chunk.ids for chunk in chunks]))


def encoded(model: CLIPModel, chunk: Chunk) -> tuple[Tensor, Tensor]:
    pixels = torch.from_numpy(chunk.pixels).permute(0, 3, 1, 2) / 255
    images = model.get_image_features(pixel_values=pixels).pooler_output
    texts = model.get_text_features(input_ids=torch.from_numpy(chunk.ids)).pooler_output
    return functional.normalize(images, dim=-1), functional.normalize(texts, dim=-1)


def gradients(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """By name, but for key biases: a softmax ignores what is added to all keys alike, and so
    their gradient is rounding noise around zero."""
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not name.endswith("k_proj.bias"):
            yield name, parameter.grad


def distance(found: Tensor, expected: Tensor) -> float:
    """Relative to the length of what is expected."""
    return float((found - expected).norm() / expected.norm().clamp_min(1e-12))
