"""SigLIP's texts become the ids of its own tokenizer, which is sentencepiece's."""

from __future__ import annotations

import io

import pytest
import sentencepiece
from transformers import SiglipTokenizer

from diptych.contract import TextSpec
from diptych.preprocess.text import TextTokenizer, clean_as_siglip
from diptych_export.sources import sentencepieces
from tests.preprocess.texts import HARD, PROSE


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> SiglipTokenizer:
    """Pieces learnt from several scripts, with SigLIP's three control tokens."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(PROSE * 10),
        model_writer=model,
        vocab_size=600,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    path = tmp_path_factory.mktemp("siglip") / "spiece.model"
    path.write_bytes(model.getvalue())
    return SiglipTokenizer(str(path), model_max_length=64)


@pytest.fixture(scope="module")
def ours(theirs: SiglipTokenizer, tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    path = tmp_path_factory.mktemp("siglip") / "tokenizer.json"
    path.write_text(sentencepieces.converted(theirs), encoding="utf-8")
    spec = TextSpec(
        context_length=64,
        cleaning="siglip",
        padding="max_length",
        pad_id=1,
        start_id=None,
        end_id=1,
        vocabulary=theirs.vocab_size,
        attention_mask=False,
    )
    return TextTokenizer(path, spec)


@pytest.mark.parametrize("text", [*PROSE, *HARD.values()])
def test_ids_are_the_librarys(ours: TextTokenizer, theirs: SiglipTokenizer, text: str) -> None:
    right = theirs(text, truncation=True, max_length=64).input_ids
    assert ours.tokenize(text, truncate=True).tokens.tolist() == right


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("A photo, of a CAT!", "a photo of a cat"),
        ("  snake_case\tand\u3000more\x1f", "snakecase and more"),
        ("ΤΕΛΟΣ", "τελος"),  # a final sigma, which Rust's letter by letter misses
        ("“quoted” — …", "“quoted” — …"),  # only ASCII punctuation goes
        ("a\u2581b", "a b"),  # sentencepiece's own sign for a space
        ("?!", ""),
    ],
)
def test_cleaning_leaves_words(text: str, cleaned: str) -> None:
    assert clean_as_siglip(text) == cleaned
