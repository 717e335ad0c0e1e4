"""How texts become calls of the text tower."""

from __future__ import annotations

import numpy as np
import pytest

from diptych.contract import ModelSpec, Tower
from diptych.engines.base import EMBEDS, MASK, PACKED
from diptych.errors import EngineFailed
from diptych.text_calls import TextCalls
from tests.serving import SHAPES

PACKS = SHAPES.spec
APART = PACKS.model_copy(
    update={
        "parity": {name: one for name, one in PACKS.parity.items() if not name.endswith(PACKED)}
    }
)
TEXTS = [np.array([PACKS.text.start_id, *range(5, 5 + n), PACKS.text.end_id]) for n in (3, 9, 4)]


def padded(spec: ModelSpec) -> ModelSpec:
    text = spec.text.model_copy(update={"padding": "max_length"})
    return spec.model_copy(update={"text": text})


def test_texts_share_rows_where_the_graph_tells_them_apart() -> None:
    call = TextCalls(PACKS, length_step=2).call(TEXTS)
    assert call.output == PACKED
    assert call.inputs["input_ids"].shape == (1, 22)


def test_elsewhere_each_has_a_row_of_its_own() -> None:
    call = TextCalls(APART, length_step=2).call(TEXTS)
    assert call.output == EMBEDS[Tower.TEXT]
    assert call.inputs["input_ids"].shape == (3, 12)


def test_a_model_that_learned_with_padding_has_it_all() -> None:
    calls = TextCalls(padded(PACKS), call_tokens=1)
    call = calls.call(TEXTS)
    assert call.output == EMBEDS[Tower.TEXT]
    assert call.inputs["input_ids"].shape == (3, PACKS.text.context_length)
    assert calls.cut([5, 32, 5]) == [[0, 1, 2]]


def test_the_mask_covers_what_is_padding() -> None:
    text = PACKS.text.model_copy(update={"attention_mask": True})
    call = TextCalls(PACKS.model_copy(update={"text": text}), length_step=8).call(TEXTS)
    assert call.inputs[MASK].sum() == sum(map(len, TEXTS))


def test_the_most_urgent_texts_fill_the_first_call_and_length_does_not_matter() -> None:
    calls = TextCalls(PACKS, call_tokens=2)  # 128 tokens are worth a call
    assert calls.cut([30, 3, 30, 30, 30, 30, 3]) == [[0, 1, 2, 3, 4], [5, 6]]
    assert calls.cut([30]) == [[0]]


def test_where_rows_are_not_shared_texts_of_like_length_go_together() -> None:
    assert TextCalls(APART, call_tokens=4, length_step=1).cut([30, 5, 30, 5]) == [[1, 3], [0, 2]]


def test_a_text_whose_vector_has_no_length_is_an_error() -> None:
    call = TextCalls(PACKS).call(TEXTS)
    right = np.ones((1, 16, PACKS.embed_dim), np.float32)
    assert call.embeds({PACKED: right}).shape == (3, PACKS.embed_dim)
    right[0, 1] = 0
    with pytest.raises(EngineFailed, match="packed_embeds has a text of zeros"):
        call.embeds({PACKED: right})
