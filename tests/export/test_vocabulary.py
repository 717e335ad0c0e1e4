from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from diptych.contract import TextSpec
from diptych.preprocess.text import TextTokenizer
from diptych_export.data import shapes, vocabulary
from diptych_export.samples import texts
from tests.export import tiny


def spec() -> TextSpec:
    own = tiny.tokenizer()
    return TextSpec(
        context_length=tiny.TINY.context_length,
        cleaning="none",
        padding="longest",
        pad_id=own.pad_token_id,
        start_id=own.bos_token_id,
        end_id=own.eos_token_id,
        vocabulary=len(own),
        attention_mask=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    tiny.tokenizer().save_pretrained(path)
    return path


def test_the_same_captions_give_the_same_tokenizer() -> None:
    captions = shapes.texts(seed=0, number=2000)
    again = vocabulary.learn(captions, tiny.TINY.context_length)
    assert again.get_vocab() == tiny.tokenizer().get_vocab()
    assert [again.tokenize(text) for text in captions] == [
        tiny.tokenizer().tokenize(text) for text in captions
    ]


def test_words_of_the_scenes_are_single_tokens() -> None:
    for text in ("a red circle", "an orange square", "the yellow star", "white cross below"):
        assert len(tiny.tokenizer().tokenize(text)) == len(text.split())
    assert len(tiny.tokenizer()) < 750


@given(st.text())
def test_any_text_at_all_comes_back_from_its_tokens(text: str) -> None:
    own = tiny.tokenizer()
    ids = own(text, add_special_tokens=False).input_ids
    heard = own.backend_tokenizer.normalizer.normalize_str(text)
    if "<|" not in heard:  # control tokens are shown as nothing
        assert "".join(str(own.decode(ids)).split()) == "".join(heard.split())
        assert own.unk_token_id not in ids


def test_transformers_and_the_serving_side_read_the_same_ids_from_the_file(folder: Path) -> None:
    theirs = CLIPTokenizer.from_pretrained(folder)
    ours = TextTokenizer(folder / "tokenizer.json", spec())
    for text in texts():
        expected = theirs(text, truncation=True).input_ids
        assert ours.tokenize(text, truncate=True).tokens.tolist() == expected
