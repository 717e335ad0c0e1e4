"""What OpenAI's and OpenCLIP's own steps make of pictures and texts, with the tests' model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from diptych.contract import ImageSpec
from diptych_export.sources.base import Array
from tests.export.sources import vocabularies
from tests.export.sources.published import CLIP
from tests.preprocess.pictures import opened
from tests.preprocess.references import OpenAITokenizer, torchvision


@torch.inference_mode()
def image_vectors(model: CLIP, files: Sequence[bytes], spec: ImageSpec) -> Array:
    """torchvision's transforms, then the model: float32 [N, D]."""
    pixels = np.stack([torchvision(opened(file), spec) for file in files])
    values = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (spec.mean, spec.std))
    vectors: Array = model.encode_image((values - mean) / std).numpy()
    return vectors


@torch.inference_mode()
def text_vectors(model: CLIP, texts: Sequence[str]) -> Array:
    """`clip.tokenize` with truncation, then the model: float32 [N, D]."""
    tokenizer = OpenAITokenizer(vocabularies.merges())
    length = len(model.positional_embedding)
    ids = torch.zeros(len(texts), length, dtype=torch.long)
    for row, text in enumerate(texts):
        tokens = tokenizer.encode(text)
        if len(tokens) > length:
            tokens = [*tokens[: length - 1], tokens[-1]]
        ids[row, : len(tokens)] = torch.tensor(tokens)
    vectors: Array = model.encode_text(ids).numpy()
    return vectors
