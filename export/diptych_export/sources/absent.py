"""What stands where a lone encoder has no other tower: smallest of its kind, and never served."""

from __future__ import annotations

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from diptych.contract import ImageSpec, TextSpec
from diptych_export.sources.base import Array

NO_PICTURES = ImageSpec(
    size=8,
    resize="squash",
    resize_to=8,
    interpolation="bicubic",
    rgb="before_resize",
    rounding="huggingface",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)
NO_TEXTS = TextSpec(
    context_length=8,
    cleaning="none",
    padding="longest",
    pad_id=2,
    start_id=0,
    end_id=1,
    vocabulary=4,
    attention_mask=False,
)


def no_tokenizer() -> str:
    """A tokenizer.json for `NO_TEXTS`: every word is unknown."""
    vocabulary = {"<start>": 0, "<end>": 1, "<pad>": 2, "<unknown>": 3}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    return tokenizer.to_str()


def one_vector(dim: int) -> Array:
    """What the graph of an absent tower answers: [D]."""
    vector = np.zeros(dim, np.float32)
    vector[0] = 1
    return vector
