"""How a prompt becomes weighed stretches, and then chunks of ids."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from diptych.errors import BadInput
from diptych.preprocess.text import TextTokenizer
from diptych.prompts import DEEPEST, PromptReader, weigh, weighed
from tests.serving import SHAPES

SPEC = SHAPES.spec.text
ROOM = SPEC.context_length - 2
END, START = SPEC.end_id, SPEC.start_id


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer(SHAPES.tokenizer, SPEC)


@pytest.fixture
def reader(tokenizer: TextTokenizer) -> PromptReader:
    return PromptReader(tokenizer, SPEC, pad_id=END)


@pytest.mark.parametrize(
    ("prompt", "stretches"),
    [
        ("a cat", [("a cat", 1)]),
        ("", []),
        ("a (cat)", [("a ", 1), ("cat", 1.1)]),
        ("a (cat:1.3) sat", [("a ", 1), ("cat", 1.3), (" sat", 1)]),
        ("(a:.5)(b: 2 )", [("a", 0.5), ("b", 2)]),
        ("(a:-1)", [("a", -1)]),
        ("[cat]", [("cat", 1 / 1.1)]),
        ("((a b))", [("a b", 1.1**2)]),
        ("(a [b] (c:2):1.5)", [("a ", 1.5), ("b", 1.5 / 1.1), (" ", 1.5), ("c", 3)]),
        (r"\(a\) \[b\] \\ \x", [(r"(a) [b] \ x", 1)]),
        ("a) b] c:1.3) :", [("a) b] c:1.3) :", 1)]),  # nothing was opened
        ("a (b [c", [("a ", 1), ("b ", 1.1), ("c", 1)]),  # nothing was closed
        ("(a:b)", [("a:b", 1.1)]),  # no number
        ("a: 1.3", [("a: 1.3", 1)]),
        ("(a [b) c]", [("a ", 1.1), ("b", 1), (" c", 1 / 1.1)]),  # they may cross
        ("()", []),
    ],
)
def test_brackets_weigh_as_in_the_community_pipelines(
    prompt: str, stretches: list[tuple[str, float]]
) -> None:
    found = weighed(prompt)
    assert [text for text, _ in found] == [text for text, _ in stretches]
    np.testing.assert_allclose([weight for _, weight in found], [w for _, w in stretches])


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        ("(a:101)", "weighs words 101 times; 100 is the most"),
        ("(a:" + "9" * 400 + ")", "weighs words inf times"),
        ("((a:50):50)", "2500 times"),
        ("(" * (DEEPEST + 1), f"more than {DEEPEST} brackets"),
    ],
)
def test_weights_without_measure_are_refused(prompt: str, problem: str) -> None:
    with pytest.raises(BadInput, match=problem):
        weighed(prompt)


def test_hostile_brackets_take_no_time() -> None:
    deep = "([" * (DEEPEST // 2) + "a :" * 6_000
    for prompt in (deep, "(a)" * 6_000, ":" * 20_000, "\\" * 20_000, "a)" * 10_000, "[]" * 10_000):
        weighed(prompt)


def test_a_chunk_is_a_start_its_tokens_an_end_and_padding(reader: PromptReader) -> None:
    read = reader.read("a red circle", is_weighted=True, room=ROOM, refuse=False)
    ids, mask, weights = reader.chunks(read, 1)
    assert ids.tolist() == [[START, *read.ids, END, *[END] * (ROOM - 3)]]
    assert mask[0].tolist() == [True] * 5 + [False] * (ROOM - 3)
    assert (weights == 1).all()
    assert (read.chunks, read.dropped, read.dropped_text) == (1, 0, "")


def test_a_long_prompt_is_cut_every_so_many_tokens_and_filled_up_with_empty_chunks(
    reader: PromptReader,
) -> None:
    text = "a red circle " * 25
    read = reader.read(text, is_weighted=True, room=8 * ROOM, refuse=False)
    assert (len(read.ids), read.chunks, read.dropped) == (75, 3, 0)
    ids, mask, _ = reader.chunks(read, 4)
    assert list(itertools.chain.from_iterable(row[1:-1] for row in ids[:2].tolist())) == list(
        read.ids[: 2 * ROOM]
    )
    assert ids[:, 0].tolist() == [START] * 4
    assert ids[:2, -1].tolist() == [END] * 2
    assert mask.sum(axis=1).tolist() == [ROOM + 2, ROOM + 2, 75 - 2 * ROOM + 2, 2]


def test_what_is_dropped_is_counted_and_told(reader: PromptReader) -> None:
    text = "a red circle " * 9 + "a (blue square:1.2) and [a Yellow STAR]"
    read = reader.read(text, is_weighted=True, room=ROOM, refuse=False)
    assert len(read.ids) == ROOM
    assert read.dropped_text == "and a yellow star"
    assert read.dropped == len(reader.read(
        "and a yellow star", is_weighted=False, room=ROOM, refuse=True
    ).ids)  # fmt: skip
    with pytest.raises(BadInput, match="is 36 tokens long, start and end included; this model"):
        reader.read(text, is_weighted=True, room=ROOM, refuse=True)


def test_the_paddings_name_becomes_padding_where_the_profile_says_so(
    tokenizer: TextTokenizer,
) -> None:
    plain = PromptReader(tokenizer, SPEC, pad_id=0)
    strict = PromptReader(tokenizer, SPEC, pad_id=0, pad_text="!")
    how = {"is_weighted": True, "room": ROOM, "refuse": False}
    ours = strict.read("a circle!! a star", **how).ids  # type: ignore[arg-type]
    parts = [plain.read(text, **how).ids for text in ("a circle", "a star")]  # type: ignore[arg-type]
    assert ours == (*parts[0], 0, 0, *parts[1])
    assert 0 not in plain.read("a circle! a star", **how).ids  # type: ignore[arg-type]
    assert strict.chunks(strict.read("", **how), 1)[0].tolist() == [  # type: ignore[arg-type]
        [START, END, *[0] * ROOM]
    ]


def test_weighing_keeps_the_mean() -> None:
    states = np.random.default_rng(0).normal(0.3, 1, (9, 7)).astype(np.float32)
    weights = np.array([1, 1, 1.5, 1, 0, -1, 1, 2, 1], np.float32)
    found = states.copy()
    weigh(found, weights)
    weighted = states * weights[:, None]
    np.testing.assert_allclose(found, weighted * (states.mean() / weighted.mean()), rtol=1e-4)
    np.testing.assert_allclose(found.mean(), states.mean(), rtol=1e-4)
    same = states.copy()
    weigh(same, np.ones(9, np.float32))
    np.testing.assert_array_equal(same, states)
    nothing = states.copy()
    weigh(nothing, np.zeros(9, np.float32))  # there is no mean to go back to
    assert np.isfinite(nothing).all()
    level = states - states.mean()  # as behind a norm: what is left of the mean means nothing
    weigh(level, weights)
    np.testing.assert_allclose(level, (states - states.mean()) * weights[:, None], rtol=1e-6)


def test_reading_needs_no_more_than_the_tokenizer(tmp_path: Path, reader: PromptReader) -> None:
    with pytest.raises(BadInput, match="characters long"):
        reader.read("a" * 40_000, is_weighted=True, room=ROOM, refuse=False)
    with pytest.raises(BadInput, match="not valid Unicode"):
        reader.read("\ud800", is_weighted=True, room=ROOM, refuse=False)
