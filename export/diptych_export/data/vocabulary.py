"""Captions in, a tokenizer in CLIP's format out: lower-cased byte-level BPE with `</w>`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"

_SUFFIX = "</w>"
_ENOUGH = 4096  # tokens; captions of one small world never need as many
_CONTROLS = 2


def learn(texts: Iterable[str], context_length: int, vocabulary: int = _ENOUGH) -> CLIPTokenizer:
    """A tokenizer of at most `vocabulary` tokens, its merges learned from `texts`.

    Every byte has a token of its own, so any string at all can be tokenised. Ids are laid
    out as in OpenAI's vocabulary: bytes, bytes that end a word, merges, start, end.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    room = max(0, vocabulary - 2 * len(alphabet) - _CONTROLS)
    merges = _merges(texts, vocabulary)[:room]
    words = [
        *alphabet,
        *(byte + _SUFFIX for byte in alphabet),
        *("".join(pair) for pair in merges),
        START,
        END,
    ]
    return CLIPTokenizer(
        vocab={word: index for index, word in enumerate(words)},
        merges=merges,
        model_max_length=context_length,
    )


def _merges(texts: Iterable[str], vocabulary: int) -> list[Any]:
    reference = CLIPTokenizer().backend_tokenizer  # for its normaliser and its way to split words
    learner = Tokenizer(models.BPE(end_of_word_suffix=_SUFFIX))
    learner.normalizer = reference.normalizer
    learner.pre_tokenizer = reference.pre_tokenizer
    learner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=2,
            end_of_word_suffix=_SUFFIX,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    # Pairs, which is what CLIPTokenizer takes; its annotation says strings.
    return [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
