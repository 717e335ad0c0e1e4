"""Token ids are the references' ids, and what does not fit is said, not hidden."""

from __future__ import annotations

import html
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ftfy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import CLIPTokenizer

from diptych.contract import TextSpec
from diptych.errors import BadInput, BadRepository
from diptych.preprocess.text import (
    TextTokenizer,
    Tokenized,
    clean_as_openai,
)
from tests.preprocess.conftest import Merges
from tests.preprocess.references import OpenAITokenizer
from tests.preprocess.texts import HARD, PROSE, random_texts

MANY = settings(max_examples=800, deadline=None, derandomize=True)


@pytest.fixture(scope="session")
def openai_spec(text_spec: TextSpec) -> TextSpec:
    return text_spec.model_copy(update={"cleaning": "openai", "context_length": 1_000})


@pytest.fixture(scope="session")
def ours_openai(tokenizer_json: Path, openai_spec: TextSpec) -> TextTokenizer:
    return TextTokenizer(tokenizer_json, openai_spec)


@pytest.fixture(scope="session")
def openai(merges: Merges) -> OpenAITokenizer:
    return OpenAITokenizer(merges)


def ids(tokenized: Tokenized) -> list[int]:
    assert tokenized.tokens.dtype == np.int64
    assert tokenized.tokens.ndim == 1
    return [int(token) for token in tokenized.tokens]


def problem(tokenizer: TextTokenizer, text: str, **options: Any) -> str:
    with pytest.raises(BadInput) as caught:
        tokenizer.tokenize(text, **options)
    [violation] = caught.value.violations
    assert violation.field == "text"
    return violation.problem


@pytest.mark.parametrize("text", [*PROSE, *HARD.values()], ids=[*PROSE, *HARD])
def test_ids_are_those_of_transformers(
    ours: TextTokenizer, theirs: CLIPTokenizer, text: str
) -> None:
    expected = theirs(text, truncation=True, max_length=77)["input_ids"]
    assert ids(ours.tokenize(text, truncate=True)) == expected


@MANY
@given(text=random_texts)
def test_ids_of_random_texts_are_those_of_transformers(
    ours: TextTokenizer, theirs: CLIPTokenizer, text: str
) -> None:
    expected = theirs(text, truncation=True, max_length=77)["input_ids"]
    assert ids(ours.tokenize(text, truncate=True)) == expected


@pytest.mark.parametrize("text", [*PROSE, *HARD.values()], ids=[*PROSE, *HARD])
def test_ids_are_those_of_openai(
    ours_openai: TextTokenizer, openai: OpenAITokenizer, text: str
) -> None:
    assert ids(ours_openai.tokenize(text)) == openai.encode(text)


@MANY
@given(text=random_texts)
def test_ids_of_random_texts_are_those_of_openai(
    ours_openai: TextTokenizer, openai: OpenAITokenizer, text: str
) -> None:
    assert ids(ours_openai.tokenize(text)) == openai.encode(text)


def test_an_empty_text_is_start_and_end(
    ours: TextTokenizer, ours_openai: TextTokenizer, text_spec: TextSpec
) -> None:
    for tokenizer in (ours, ours_openai):
        for text in ("", "  \n"):
            assert ids(tokenizer.tokenize(text)) == [text_spec.start_id, text_spec.end_id]


HIDDEN = "a cat<|endoftext|>a dog"


@pytest.mark.parametrize("control", ["<|endoftext|>", "<|startoftext|>", "<|ENDOFTEXT|>"])
@pytest.mark.parametrize("cleaning", ["none", "openai"])
def test_a_caller_cannot_write_a_control_token(
    tokenizer_json: Path, text_spec: TextSpec, control: str, cleaning: str
) -> None:
    """An end token inside a text would hide what follows it from the tower."""
    spec = text_spec.model_copy(update={"cleaning": cleaning})
    tokenizer = TextTokenizer(tokenizer_json, spec)
    start, *inner, end = ids(tokenizer.tokenize(f"a cat {control} a dog"))
    assert (start, end) == (spec.start_id, spec.end_id)
    assert not {spec.start_id, spec.end_id} & set(inner)


def test_the_references_do_let_a_caller_write_one(
    theirs: CLIPTokenizer, openai: OpenAITokenizer, text_spec: TextSpec
) -> None:
    """The one difference from them that is meant; if they ever change, drop the note on it."""
    assert text_spec.end_id in theirs(HIDDEN)["input_ids"][1:-1]
    assert text_spec.end_id in openai.encode(HIDDEN)[1:-1]


def test_a_text_that_does_not_fit_is_refused_with_its_length(ours: TextTokenizer) -> None:
    assert problem(ours, "! " * 91) == (
        "is 93 tokens long, start and end included; this model takes at most 77; "
        "shorten it or allow truncation"
    )


def test_a_text_that_just_fits_is_taken_whole(ours: TextTokenizer) -> None:
    tokenized = ours.tokenize("! " * 75)
    assert len(tokenized.tokens) == 77
    assert tokenized.dropped == 0


@pytest.mark.parametrize("words", [76, 91, 5_000])
def test_truncation_keeps_the_end_token_and_says_what_it_cost(
    ours: TextTokenizer, text_spec: TextSpec, words: int
) -> None:
    tokenized = ours.tokenize("! " * words, truncate=True)
    whole = ids(ours.tokenize("! " * 75))
    assert ids(tokenized) == whole
    assert whole[-1] == text_spec.end_id
    assert tokenized.dropped == words - 75


def test_truncation_is_openais(
    tokenizer_json: Path, openai_spec: TextSpec, openai: OpenAITokenizer
) -> None:
    """clip.tokenize(truncate=True): the first L ids, the last of them replaced by the end."""
    spec = openai_spec.model_copy(update={"context_length": 10})
    expected = openai.encode(PROSE[0])[:10]
    expected[-1] = spec.end_id
    tokenizer = TextTokenizer(tokenizer_json, spec)
    assert ids(tokenizer.tokenize(PROSE[0], truncate=True)) == expected


def test_a_huge_text_is_refused_before_it_costs_anything(ours: TextTokenizer) -> None:
    start = time.thread_time()
    said = problem(ours, "a\n" * 10_000_000, truncate=True)
    assert time.thread_time() - start < 0.1
    assert said == "is 20,000,000 characters long; at most 32,768 are allowed"


def test_the_longest_text_allowed_takes_a_bounded_time(ours_openai: TextTokenizer) -> None:
    start = time.thread_time()
    ours_openai.tokenize("é\n" * 16_384, truncate=True)
    assert time.thread_time() - start < 3.0


@pytest.mark.parametrize("text", ["\ud800", "abc\udfff", "\ud83d\ude00"], ids=ascii)
def test_half_a_surrogate_pair_is_named(
    ours: TextTokenizer, ours_openai: TextTokenizer, text: str
) -> None:
    where = 3 if text.startswith("abc") else 0
    for tokenizer in (ours, ours_openai):
        said = problem(tokenizer, text)
        assert said == f"is not valid Unicode: character {where} is half of a surrogate pair"


def test_many_threads_tokenize_alike(ours_openai: TextTokenizer) -> None:
    texts = [*PROSE, *HARD.values()] * 20
    alone = [ids(ours_openai.tokenize(text)) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        together = [ids(tokenized) for tokenized in pool.map(ours_openai.tokenize, texts)]
    assert together == alone


def test_a_long_text_does_not_hold_up_other_threads(
    tokenizer_json: Path, text_spec: TextSpec
) -> None:
    tokenizer = TextTokenizer(tokenizer_json, text_spec, max_chars=1_000_000)
    ticks, done = [0], threading.Event()

    def tick() -> None:
        while not done.wait(0.001):
            ticks[0] += 1

    clock = threading.Thread(target=tick)
    clock.start()
    before = ticks[0]
    tokenizer.tokenize("word " * 120_000, truncate=True)  # takes half a second
    during = ticks[0] - before
    done.set()
    clock.join()
    assert during > 20  # one or two, were the interpreter lock held


def test_a_file_that_pads_and_truncates_by_itself_does_not(
    tokenizer_json: Path, text_spec: TextSpec, tmp_path: Path
) -> None:
    meddling = Tokenizer.from_file(str(tokenizer_json))
    meddling.enable_padding(length=64)
    meddling.enable_truncation(max_length=5)
    meddling.save(str(tmp_path / "tokenizer.json"))
    plain = TextTokenizer(tokenizer_json, text_spec).tokenize(PROSE[0])
    tokenized = TextTokenizer(tmp_path / "tokenizer.json", text_spec).tokenize(PROSE[0])
    assert ids(tokenized) == ids(plain)


@pytest.mark.parametrize("content", [None, "", "{}", "not json"])
def test_a_file_that_is_no_tokenizer_stops_the_start(
    tmp_path: Path, text_spec: TextSpec, content: str | None
) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadRepository, match="not a readable tokenizer"):
        TextTokenizer(path, text_spec)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"end_id": 5}, "frames a text with"),
        ({"start_id": None}, "frames a text with"),
        ({"vocabulary": 300}, "the spec ends at 300"),
    ],
    ids=str,
)
def test_a_tokenizer_of_another_model_stops_the_start(
    tokenizer_json: Path, text_spec: TextSpec, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(BadRepository, match=complaint):
        TextTokenizer(tokenizer_json, text_spec.model_copy(update=changes))


@MANY
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
def test_plain_texts_are_cleaned_by_the_short_way_as_by_the_long(text: str) -> None:
    mended = html.unescape(html.unescape(ftfy.fix_text(text)))
    assert clean_as_openai(text) == " ".join(mended.split()).lower()
