"""How to train: what a step is computed with, and what it tells of itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, slots=True)
class Recipe:
    """AdamW with warm-up and cosine, as in CLIP §2.5."""

    steps: int
    rate: float  # highest learning rate, reached after `warmup` steps
    warmup: int  # steps; without it the first updates ruin the layer norms
    weight_decay: float  # of matrices only
    clip_norm: float  # of the gradient of all parameters together


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the training log."""

    number: int  # of this step, from 1
    loss: float
    accuracy: float  # share of images nearest to their own text within their group
    scale: float  # logit scale, exponentiated
    rate: float
    gradient_norm: float  # before clipping
    seconds: float  # since the first step began


def rate_at(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then half a cosine down to zero. The first step is 0."""
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.rate * (1 + math.cos(math.pi * done)) / 2


def groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters in two groups: matrices decay; gains, biases and the scale do not."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
