"""Batches in, trained towers out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from diptych_export import loss
from diptych_export.data.batches import Batch
from diptych_export.dual import unit_images, unit_texts


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train. Defaults are those of the `shapes` demonstration."""

    steps: int = 4500
    rate: float = 2e-3  # highest learning rate, reached after `warmup` steps
    warmup: int = 150  # steps; without it the first updates ruin the layer norms
    weight_decay: float = 0.1  # of matrices only
    clip_norm: float = 1.0  # of the gradient of all parameters together


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


def train(
    model: Any,
    tokenizer: CLIPTokenizer,
    batches: Iterable[Batch],
    recipe: Recipe,
    report: Callable[[Step], None],
) -> None:
    """Train `model` (see `learner.Learner`) in place for `recipe.steps` batches, reporting each."""
    optimiser = torch.optim.AdamW(
        groups(model, recipe.weight_decay), lr=recipe.rate, betas=(0.9, 0.98), eps=1e-6
    )
    began = time.monotonic()
    model.train()
    for number, batch in enumerate(islice(batches, recipe.steps)):
        rate = rate_at(number, recipe)
        for group in optimiser.param_groups:
            group["lr"] = rate
        value, right = _losses(model, tokenizer, batch)
        optimiser.zero_grad()
        value.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimiser.step()
        loss.clamp_scale(model.logit_scale)
        report(
            Step(
                number=number + 1,
                loss=value.item(),
                accuracy=right,
                scale=model.logit_scale.exp().item(),
                rate=rate,
                gradient_norm=norm.item(),
                seconds=time.monotonic() - began,
            )
        )
    model.eval()


def rate_at(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then half a cosine down to zero."""
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


def _losses(model: Any, tokenizer: CLIPTokenizer, batch: Batch) -> tuple[Tensor, float]:
    ids = tokenizer(batch.texts, padding=True, truncation=True, return_tensors="pt").input_ids
    images = unit_images(model, torch.from_numpy(batch.pixels))
    texts = unit_texts(model, ids)
    sizes = list(batch.groups) or [len(batch.texts)]
    total, right = images.new_zeros(()), 0
    for own_images, own_texts in zip(images.split(sizes), texts.split(sizes), strict=True):
        total = total + len(own_images) * loss.softmax(own_images, own_texts, model.logit_scale)
        nearest = (own_images.detach() @ own_texts.detach().T).argmax(dim=1)
        right += int((nearest == torch.arange(len(nearest))).sum())
    return total / len(batch.texts), right / len(batch.texts)
