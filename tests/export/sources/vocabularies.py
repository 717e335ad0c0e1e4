"""Small tokenizers of every kind the checkpoints bring, trained on a few lines."""

# ruff: noqa: RUF001  look-alikes are meant

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from functools import cache
from typing import TypeAlias

import sentencepiece
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

Merges: TypeAlias = list[tuple[str, str]]

LINES = [
    "a photo of a red circle above a blue square",
    "two dogs playing in the snow at night",
    "the quick brown fox jumps over the lazy dog",
    "ein großer Hund läuft über die Straße",
    "une photo d'un café à l'ombre d'un chêne",
    "фотография красного круга над синим квадратом",
    "μια φωτογραφία ενός μεγάλου σκύλου στους δρόμους",
    "一只猫坐在沙发上的照片 赤い丸と青い四角",
    "0123456789 !?.,;:'-()",
]

TEXTS = [
    "a",
    "a photo of a cat",
    "A Photo of THE red circle, above a blue square!",
    "two dogs; playing in the snow -- at night?",
    "it's the dog's 3rd photo: don't we'll they've",
    "  spaces \t and\nlines  ",
    "ein großer Hund läuft über die Straße",
    "une photo d'un café à l'ombre",
    "фотография красного круга",
    "ΟΔΟΣ στους δρόμους ΤΕΛΟΣ",
    "一只猫坐在沙发上的照片",
    "赤い丸と青い四角の写真",
    "a 😀 fox & 7 lazy_dogs (1990)",
    "naïve façade ﬁne Ｗｉｄｅ",
    "",
    "the quick brown fox jumps over the lazy dog, again and again",
]


def merges(words: Sequence[str] = ("photo", "the", "red", "dog", "circle", "ing", "a")) -> Merges:
    """Merges of byte-pair encoding, in order, which build `words` from the left."""
    found: dict[tuple[str, str], None] = {}
    for word in words:
        letters = [*word[:-1], word[-1] + "</w>"]
        while len(letters) > 1:
            found[letters[0], letters[1]] = None
            letters = ["".join(letters[:2]), *letters[2:]]
    return list(found)


@cache
def sentence_pieces() -> bytes:
    """A sentencepiece model as SigLIP's: unigram, NFKC, ids 0 to 2 for padding, end, unknown."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 20),
        model_writer=model,
        vocab_size=400,
        hard_vocab_limit=False,
        model_type="unigram",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return model.getvalue()


@cache
def unigram_pieces() -> tuple[tuple[str, float], ...]:
    """XLM-RoBERTa's layout: <s> <pad> </s> <unk>, then words and letters with their scores."""
    special = ("<s>", "<pad>", "</s>", "<unk>")
    words = {f"\u2581{word}" for line in LINES for word in line.split()}
    letters = {letter for line in LINES for letter in line.lower()} | {"\u2581"}
    pieces = sorted(words | letters)
    return tuple((piece, 0.0) for piece in special) + tuple(
        (piece, -3.0 - 0.01 * i - (4 if len(piece) == 1 else 0)) for i, piece in enumerate(pieces)
    )


@cache
def gemma_pieces() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Gemma's layout: five control tokens, every byte, then letters and what they merge to."""
    control = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    trainer = BpeTrainer(
        vocab_size=420,
        special_tokens=[*control, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    tokenizer = Tokenizer(BPE(unk_token="<unk>", byte_fallback=True))
    spaced = [line.lower().replace(" ", "\u2581") for line in LINES]
    tokenizer.train_from_iterator(spaced, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


@cache
def word_pieces() -> tuple[str, ...]:
    """BERT's layout: [PAD] [UNK] [CLS] [SEP] [MASK], words, letters, and letters inside words."""
    words = {word.lower() for line in LINES for word in line.split()}
    letters = sorted({letter for word in words for letter in word})
    inner = [f"##{letter}" for letter in letters]
    return (
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *sorted(words - set(letters)),
        *letters,
        *inner,
    )
