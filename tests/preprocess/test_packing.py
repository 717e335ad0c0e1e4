"""Texts side by side in full rows."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.contract import TEXTS_A_ROW, TextSpec
from diptych.preprocess.packing import arranged, packed

LONGEST = 77


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(2, LONGEST), min_size=1, max_size=150),
    step=st.sampled_from([1, 2, 8]),
)
def test_every_text_lies_whole_in_a_row_that_the_tower_takes(lengths: list[int], step: int) -> None:
    found = arranged(lengths, LONGEST, step)
    assert sorted(text for row in found.rows for text in row) == list(range(len(lengths)))
    assert found.width == LONGEST or found.width % step == 0
    assert found.width <= LONGEST
    for row in found.rows:
        assert 1 <= len(row) <= TEXTS_A_ROW
        assert sum(lengths[text] for text in row) <= found.width


@pytest.mark.parametrize("texts", [16, 32, 60])
def test_little_of_a_batch_of_captions_is_padding(texts: int) -> None:
    draw = Random(5)
    for _ in range(50):
        lengths = [draw.randint(7, 30) for _ in range(texts)]
        found = arranged(lengths, LONGEST, 2)
        assert sum(lengths) / (len(found.rows) * found.width) > 0.9


def test_few_texts_share_a_row_of_their_own_length() -> None:
    assert arranged([20, 8], LONGEST, 2).width == 28
    assert arranged([13], LONGEST, 2).width == 14
    assert arranged([13], LONGEST, 1).rows == [[0]]


def test_ids_and_places_are_those_of_the_texts(text_spec: TextSpec) -> None:
    draw = np.random.default_rng(1)
    batch = [draw.integers(10, 500, length) for length in draw.integers(2, 40, 50)]
    found = packed(batch, text_spec.model_copy(update={"pad_id": 7}), step=2)
    assert found.ids.dtype == found.present.dtype == np.int64
    for row in range(len(found.ids)):
        texts = np.flatnonzero(found.rows == row)
        in_order = sorted(texts, key=found.slots.__getitem__)
        whole = np.concatenate([batch[text] for text in in_order])
        assert found.slots[in_order].tolist() == list(range(len(texts)))
        assert np.array_equal(found.ids[row, : len(whole)], whole)
        assert (found.ids[row, len(whole) :] == 7).all()
        assert found.present[row].sum() == len(whole)
