"""A dual encoder too small to be good for anything but to be trained and exported in seconds."""

from __future__ import annotations

from functools import cache

from transformers import CLIPModel, CLIPProcessor, CLIPTokenizer

from diptych_export import checkpoint, dual
from diptych_export.data import shapes, vocabulary

TINY = dual.Preset(
    image_size=64,
    patch_size=16,
    image_width=32,
    image_layers=2,
    text_width=32,
    text_layers=2,
    mlp_ratio=2,
    head_width=16,
    context_length=32,
    embed_dim=16,
)


@cache
def tokenizer() -> CLIPTokenizer:
    return vocabulary.learn(shapes.texts(seed=0, number=2000), TINY.context_length)


def model(seed: int = 0) -> CLIPModel:
    fresh = dual.new(TINY, tokenizer(), seed)
    fresh.eval()
    return fresh


def processor() -> CLIPProcessor:
    return checkpoint.processor_for(model(), tokenizer())
