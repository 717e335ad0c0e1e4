"""A small tokenizer in the exact format of the public ones, trained on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from diptych.contract import TextSpec
from diptych.preprocess.text import TextTokenizer
from tests.preprocess.references import byte_letters, openai_vocabulary
from tests.preprocess.texts import PROSE

Merges = list[tuple[str, str]]


@pytest.fixture(scope="session")
def merges() -> Merges:
    """A few hundred merges with CLIP's end-of-word mark, learnt from several scripts."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1_500,
        min_frequency=1,
        initial_alphabet=byte_letters(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator((word for text in PROSE for word in text.split()), trainer)
    learnt = json.loads(tokenizer.to_str())["model"]["merges"]
    assert len(learnt) > 400
    return [(first, second) for first, second in learnt]


@pytest.fixture(scope="session")
def theirs(merges: Merges) -> CLIPTokenizer:
    """transformers' own tokenizer over those merges."""
    vocabulary = {token: i for i, token in enumerate(openai_vocabulary(merges))}
    pairs: Any = merges  # annotated as a list of strings, but read as one of pairs
    return CLIPTokenizer(vocab=vocabulary, merges=pairs)


@pytest.fixture(scope="session")
def tokenizer_json(theirs: CLIPTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    theirs.save_pretrained(folder)
    return folder / "tokenizer.json"


@pytest.fixture(scope="session")
def text_spec(theirs: CLIPTokenizer) -> TextSpec:
    """CLIP's, as transformers reads it."""
    assert theirs.bos_token_id is not None
    assert theirs.eos_token_id is not None
    return TextSpec(
        context_length=77,
        cleaning="none",
        padding="longest",
        pad_id=0,
        start_id=theirs.bos_token_id,
        end_id=theirs.eos_token_id,
        vocabulary=len(theirs),
        attention_mask=False,
    )


@pytest.fixture(scope="session")
def ours(tokenizer_json: Path, text_spec: TextSpec) -> TextTokenizer:
    return TextTokenizer(tokenizer_json, text_spec)
