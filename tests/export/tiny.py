"""A dual encoder too small to be good for anything but to be trained and exported in seconds."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from transformers import CLIPModel, CLIPTokenizer

from diptych_export import layouts
from diptych_export.data import shapes, vocabulary
from diptych_export.learner import Learner
from diptych_export.sources.architecture import Architecture, Stack, Vision
from diptych_export.starting import Plan, begun

TINY = Architecture(
    vision=Vision(Stack(32, 2, 2, 64), image_size=64, patch_size=16),
    text=Stack(32, 2, 2, 64),
    context_length=32,
    vocabulary=4096,
    embed_dim=16,
    activation="gelu",
)


@cache
def tokenizer() -> CLIPTokenizer:
    return vocabulary.learn(shapes.texts(seed=0, number=2000), TINY.context_length)


def learner(seed: int = 0) -> Learner:
    """In training mode; the same seed, the same weights."""
    torch.manual_seed(seed)
    return begun(Plan("tiny", preset=TINY), tokenizer(), "softmax")


def model(seed: int = 0) -> CLIPModel:
    fresh: CLIPModel = learner(seed).model.eval()
    return fresh


def processor() -> Any:
    """CLIP's, as a checkpoint would have it."""
    return layouts.processor(learner())
