"""A text tower that takes several texts in a row, and keeps them apart."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor

from diptych.contract import TextSpec, Tokens, Tower
from diptych.engines.base import EMBEDS, PACKED, Array
from diptych.preprocess.packing import packed
from diptych.text_calls import inputs
from diptych_export import graph
from diptych_export.build import build
from diptych_export.errors import ParityError
from diptych_export.extras import extended
from diptych_export.graph import frame
from diptych_export.onnx import write_text_graph
from diptych_export.sources.base import Source
from diptych_export.sources.huggingface import open_huggingface
from tests.export import tiny


@pytest.fixture(scope="module")
def source() -> Source:
    with tempfile.TemporaryDirectory() as folder:
        tiny.model().save_pretrained(folder)
        tiny.processor().save_pretrained(folder)
        return open_huggingface(folder, "Apache-2.0")


def session(source: Source, folder: Path) -> ort.InferenceSession:
    path = folder / "text.onnx"
    write_text_graph(source.text_tower, source.text, path)
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"])


def texts(spec: TextSpec, lengths: Sequence[int]) -> list[Tokens]:
    draw = np.random.default_rng(3)
    return [
        np.array([spec.start_id, *draw.integers(10, 200, length - 2), spec.end_id])
        for length in lengths
    ]


def alone(run: ort.InferenceSession, spec: TextSpec, text: Tokens) -> Array:
    feed = inputs(spec, text[None], np.ones_like(text)[None])
    answer: Array = run.run([EMBEDS[Tower.TEXT]], feed)[0][0]
    return answer


@pytest.mark.parametrize("masked", [False, True], ids=["unmasked", "masked"])
def test_a_text_has_the_same_vector_whoever_lies_beside_it(
    source: Source, tmp_path: Path, masked: bool
) -> None:
    own = extended(source, hidden_states=0, attention_mask=masked)
    run, batch = session(own, tmp_path), texts(own.text, [2, 30, 7, 11, 3, 3, 19, 5, 2, 2])
    rows = packed(batch, own.text, step=1)
    answer = run.run([PACKED], inputs(own.text, rows.ids, rows.present))[0]
    assert answer.shape[0] < len(batch)
    for place, text in enumerate(batch):
        found = answer[rows.rows[place], rows.slots[place]]
        np.testing.assert_allclose(found, alone(run, own.text, text), atol=1e-5)


def test_a_row_of_one_text_answers_in_its_first_place_and_is_zero_beyond(
    source: Source, tmp_path: Path
) -> None:
    run, [text] = session(source, tmp_path), texts(source.text, [9])
    answer = run.run([PACKED, EMBEDS[Tower.TEXT]], {"input_ids": text[None]})
    np.testing.assert_allclose(answer[0][0, 0], answer[1][0], atol=1e-6)
    assert not answer[0][0, 1:].any()


def test_a_graph_whose_texts_see_each_other_is_refused(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told_apart(ids: Tensor, heeded: Tensor | None, own: graph.Frame) -> tuple[Tensor, Tensor]:
        seen = torch.ones(ids.shape[1], ids.shape[1]).tril() * (ids[:, None, :] >= 0)
        return seen, (seen.sum(-1) - 1).long()

    monkeypatch.setattr(graph, "_told_apart", told_apart)
    with pytest.raises(ParityError, match=r"text\.packed_embeds of text \d+ at batch 2: cosine"):
        build(source, "tiny", tmp_path)
    assert not list(tmp_path.iterdir())


def test_texts_that_cannot_be_told_apart_do_not_share_a_row(source: Source) -> None:
    spec = source.text
    assert frame(spec.model_copy(update={"context_length": 256})) is not None
    assert frame(spec.model_copy(update={"context_length": 257})) is None
    for update in ({"start_id": None}, {"start_id": spec.end_id}, {"pad_id": spec.start_id}):
        assert frame(spec.model_copy(update=update)) is None
