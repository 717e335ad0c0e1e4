"""Batches of texts: their shape, and which run together."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from diptych.contract import TextSpec
from diptych.preprocess.text import (
    TextTokenizer,
    by_length,
    pad_tokens,
)
from tests.preprocess.texts import PROSE


@pytest.mark.parametrize(
    ("lengths", "padded"),
    [([2], 8), ([8], 8), ([9, 3], 16), ([2, 17, 40], 40), ([73], 77), ([77, 2], 77)],
    ids=str,
)
def test_a_batch_is_padded_to_its_longest_rounded_up_to_eight(
    text_spec: TextSpec, lengths: list[int], padded: int
) -> None:
    spec = text_spec.model_copy(update={"pad_id": 7})
    batch = [np.arange(100, 100 + length) for length in lengths]
    input_ids, mask = pad_tokens(batch, spec)
    assert input_ids.shape == mask.shape == (len(lengths), padded)
    assert input_ids.dtype == mask.dtype == np.int64
    for row, tokens in enumerate(batch):
        assert np.array_equal(input_ids[row, : len(tokens)], tokens)
        assert (input_ids[row, len(tokens) :] == 7).all()
        assert mask[row].tolist() == [1] * len(tokens) + [0] * (padded - len(tokens))


def test_a_model_trained_on_padding_always_gets_it(text_spec: TextSpec) -> None:
    spec = text_spec.model_copy(update={"padding": "max_length"})
    input_ids, mask = pad_tokens([np.array([1, 2])], spec)
    assert input_ids.shape == (1, 77)
    assert mask.sum() == 2


def test_padded_batches_are_those_of_transformers(
    ours: TextTokenizer, theirs: CLIPTokenizer, text_spec: TextSpec
) -> None:
    spec = text_spec.model_copy(update={"padding": "max_length", "pad_id": theirs.pad_token_id})
    texts = PROSE[:6]
    expected = theirs(texts, padding="max_length", max_length=77, truncation=True)
    batch = [ours.tokenize(text, truncate=True).tokens for text in texts]
    input_ids, mask = pad_tokens(batch, spec)
    assert input_ids.tolist() == expected["input_ids"]
    assert mask.tolist() == expected["attention_mask"]


def cost(groups: list[list[int]], lengths: list[int], call_tokens: int) -> int:
    """What `by_length` minimises, counted afresh."""
    padded = [max(-(-lengths[row] // 8) * 8 for row in group) * len(group) for group in groups]
    return sum(padded) + call_tokens * len(groups)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=7),
    call_tokens=st.integers(0, 100),
)
def test_no_other_cut_of_a_batch_by_length_is_cheaper(lengths: list[int], call_tokens: int) -> None:
    groups = by_length(lengths, call_tokens)
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    rows = sorted(range(len(lengths)), key=lengths.__getitem__)
    for cuts in product([False, True], repeat=len(rows) - 1):
        other: list[list[int]] = [[rows[0]]]
        for row, cut in zip(rows[1:], cuts, strict=True):
            other = [*other, [row]] if cut else [*other[:-1], [*other[-1], row]]
        assert cost(groups, lengths, call_tokens) <= cost(other, lengths, call_tokens)


def test_long_and_short_texts_run_apart_where_a_call_costs_little() -> None:
    lengths = [7, 77, 8, 30, 7, 76]
    assert by_length(lengths, call_tokens=16) == [[0, 4, 2], [3], [5, 1]]
    assert len(by_length(lengths, call_tokens=10_000)) == 1
