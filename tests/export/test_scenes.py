from __future__ import annotations

from itertools import islice
from random import Random

import numpy as np
import pytest

from diptych_export.data import captions, shapes
from diptych_export.data.drawing import draw
from diptych_export.data.loading import Chunks, State
from diptych_export.data.scene_chunks import Lessons, SceneChunks
from diptych_export.data.scenes import (
    COLOURS,
    HELD_OUT,
    OPPOSITE,
    PAIRS,
    SHAPES,
    SIDE_PX,
    TRAINING,
    Pair,
    Relation,
    Scene,
    one,
    two,
)

RELATIONS: list[Relation] = ["left", "right", "above", "below"]


def pairs_said(text: str) -> set[Pair]:
    """Every colour with the shape it describes: the next one, or the last one before it."""
    words = text.lower().rstrip(".").split(" on a ")[0].replace("-", " ").split()
    shapes_at = [place for place, word in enumerate(words) if word in SHAPES]
    said = set()
    for place, word in enumerate(words):
        if word in COLOURS and shapes_at:
            after = [at for at in shapes_at if at > place]
            said.add((word, words[after[0] if after else shapes_at[-1]]))
    return said


def test_a_fifth_of_the_pairs_is_held_out_but_no_colour_and_no_shape() -> None:
    assert len(HELD_OUT) * 5 == len(PAIRS)
    assert {colour for colour, _ in TRAINING} == set(COLOURS)
    assert {shape for _, shape in TRAINING} == set(SHAPES)
    assert not HELD_OUT & set(TRAINING)


@pytest.mark.parametrize("is_alone", [True, False])
def test_held_out_pairs_are_in_no_training_picture_and_in_no_caption(is_alone: bool) -> None:
    seen: set[Pair] = set()
    for step in range(10):
        for scene, text in shapes.examples(96, 5, step, is_alone=is_alone):
            shown = {thing.pair for thing in scene.things}
            assert pairs_said(text) == shown, text
            seen |= shown
    assert seen == set(TRAINING)


def test_lessons_teach_no_held_out_pair_and_every_word_alone() -> None:
    for alone in (0, 9):
        said: set[str] = set()
        for lesson in islice(Lessons(4, side_px=SIDE_PX, alone=alone), 6):
            assert sum(lesson.groups) == len(lesson.texts) == len(lesson.pixels)
            assert len(lesson.texts) == shapes.LESSON or alone
            assert not any(pairs_said(text) & HELD_OUT for text in lesson.texts)
            said |= {word for text in lesson.texts for word in text.rstrip(".").split()}
        assert said >= {*COLOURS, *SHAPES}


def test_the_tokenizers_captions_name_no_held_out_pair() -> None:
    for text in shapes.texts(seed=3, number=600):
        assert not pairs_said(text) & HELD_OUT, text


def test_a_seed_draws_the_same_bytes_and_another_seed_others() -> None:
    first, again, other = (next(SceneChunks(32, seed, alone=0)) for seed in (7, 7, 8))
    assert first.texts == again.texts
    assert first.pixels.tobytes() == again.pixels.tobytes()
    assert first.texts != other.texts


def test_a_batch_is_the_same_wherever_the_stream_is_taken_up() -> None:
    def both(state: State | None) -> tuple[Chunks, Chunks]:
        lessons = Lessons(0, side_px=SIDE_PX, alone=2, state=state)
        return SceneChunks(16, 0, alone=2, state=state), lessons

    for whole, again in zip(both(None), both({"drawn": 2}), strict=True):
        third = list(islice(whole, 3))[2]
        assert next(again).texts == third.texts
        assert whole.state() == again.state()


@pytest.mark.parametrize(("is_alone", "counts"), [(True, {1}), (False, {1, 2})])
def test_scenes_show_one_thing_at_first_and_two_later(is_alone: bool, counts: set[int]) -> None:
    found = shapes.examples(96, 0, 0, is_alone=is_alone)
    assert {len(scene.things) for scene, _ in found} == counts


def test_the_first_batches_are_no_larger_than_there_are_pairs() -> None:
    sizes = [len(batch.texts) for batch in islice(SceneChunks(96, 0, alone=2), 3)]
    assert sizes == [len(TRAINING), len(TRAINING), 96]


@pytest.mark.parametrize("is_alone", [True, False])
def test_no_caption_of_a_batch_fits_another_of_its_scenes(is_alone: bool) -> None:
    """Scenes of the same things differ in relation or in size, and their captions name that."""
    for step in range(10):
        kinds: dict[frozenset[Pair], list[tuple[Scene, str]]] = {}
        for scene, text in shapes.examples(96, 1, step, is_alone=is_alone):
            kinds.setdefault(frozenset(thing.pair for thing in scene.things), []).append(
                (scene, text)
            )
        for family in kinds.values():
            told_apart = {(s.relation, s.relation or s.things[0].size) for s, _ in family}
            assert len(told_apart) == len(family)
            if len(family) > 1:
                assert all(says_more(text) for _, text in family), family


def says_more(text: str) -> bool:
    sizes = {"small", "little", "tiny", "large", "big", "huge"}
    places = {"left", "right", "above", "over", "below", "under", "beneath", "top", "bottom"}
    return bool((sizes | places) & set(text.rstrip(".").split()))


@pytest.mark.parametrize("relation", RELATIONS)
def test_things_lie_as_their_relation_says_and_inside_the_picture(relation: Relation) -> None:
    rng = Random(f"places/{relation}")
    for _ in range(200):
        pair, other = rng.sample(PAIRS, 2)
        first, second = two(rng, pair, other, relation).things
        x, y = first.x - second.x, first.y - second.y
        along = {"left": -x, "right": x, "above": -y, "below": y}[relation]
        assert along > 2 * min(abs(x), abs(y))
        for thing in (first, second):
            assert thing.diameter / 2 <= thing.x <= SIDE_PX - thing.diameter / 2
            assert thing.diameter / 2 <= thing.y <= SIDE_PX - thing.diameter / 2


@pytest.mark.parametrize("pair", PAIRS, ids=" ".join)
def test_a_thing_is_drawn_in_its_colour_at_its_place(pair: Pair) -> None:
    rng = Random(f"drawn/{pair}")
    for _ in range(5):
        scene = one(rng, pair)
        thing = scene.things[0]
        off = np.abs(draw(scene).astype(int) - thing.rgb).max(axis=-1)
        rows, columns = np.nonzero(off <= 40)
        assert len(rows) >= 0.1 * thing.diameter**2
        assert np.hypot(rows.mean() - thing.y, columns.mean() - thing.x) < 0.25 * thing.diameter


def test_the_reverse_of_a_statement_has_the_opposite_relation() -> None:
    scene = two(Random(1), ("red", "circle"), ("orange", "square"), "above")
    assert captions.stated(scene) == "a red circle above an orange square"
    assert captions.stated(scene, reverse=True) == "a red circle below an orange square"
    assert OPPOSITE[OPPOSITE["left"]] == "left"
