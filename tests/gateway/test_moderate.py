"""Moderate through a real socket, on the shipped model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diptych import scoring
from diptych.errors import BadInput, BadRepository, DiptychError, NotFound
from diptych.preprocess.images import decode_image
from diptych.v1 import embedding_pb2
from diptych.wire import Options
from diptych.wire_moderation import ConceptScore
from tests.drawing import PICTURES, encoded, red_circle
from tests.serving import SHAPES, faulty, served

CIRCLE = encoded(red_circle())
SQUARE = (PICTURES / "blue_square.jpg").read_bytes()
STAR = (PICTURES / "yellow_star.png").read_bytes()
SPEC = SHAPES.spec

POLICY = """
name: toys
version: "7"
description: round and square things
templates: ["{}", "a picture of {}"]
concepts:
  - name: circle
    prompts: [a red circle, a purple circle]
    threshold: 0.6
    text_threshold: 0.7
    action: review
    severity: 4
  - name: square
    prompts: [a blue square, a red square]
    measure: softmax
    contrast: [a red circle, a yellow star]
    templates: []
    threshold: 0.5
    action: block
    severity: 8
  - name: square-odds
    prompts: [a blue square, a red square]
    measure: logit
    contrast: [a red circle, a yellow star]
    templates: []
    threshold: 100
    action: flag
    severity: 1
  - name: cross
    prompts: [a black cross]
    measure: sigmoid
    threshold: 1
    action: flag
    severity: 2
  - name: star
    prompts: [a yellow star]
    measure: logit
    threshold: 45
    action: flag
    severity: 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "toys.yaml").write_text(POLICY)
    return tmp_path


def by_name(scores: tuple[ConceptScore, ...]) -> dict[str, ConceptScore]:
    return {one.concept: one for one in scores}


async def test_an_image_gets_the_strongest_action_among_the_concepts_it_reaches(
    folder: Path,
) -> None:
    async with served(policies=folder) as client:
        reply = await client.moderate([CIRCLE, SQUARE, STAR], "toys")
    circle, square, star = reply.judgements
    assert (circle.verdict, circle.severity, circle.reached) == ("review", 4, ("circle",))
    assert (square.verdict, square.severity, square.reached) == ("block", 8, ("square",))
    assert (star.verdict, star.severity, star.reached) == ("flag", 3, ("star",))
    assert (reply.policy, reply.version) == ("toys", "7")
    assert reply.space.fingerprint == SPEC.fingerprint
    assert [one.concept for one in circle.concepts] == [
        "circle", "square", "square-odds", "cross", "star",
    ]  # fmt: skip
    for one in circle.concepts:
        np.testing.assert_allclose(one.margin, one.score - one.threshold, rtol=1e-6)
        assert one.reached == (one.margin >= 0)
    assert by_name(circle.concepts)["circle"].prompt == "a red circle"
    assert by_name(square.concepts)["square"].action == "block"


async def test_each_measure_can_be_made_again_from_the_vectors(folder: Path) -> None:
    async with served(policies=folder) as client:
        judged = (await client.moderate([CIRCLE], "toys")).judgements[0]
        softmax = await client.score(
            [CIRCLE],
            ["a blue square", "a red square", "a red circle", "a yellow star"],
            measure="softmax",
        )
        cosines = await client.score(
            [CIRCLE],
            ["a red circle", "a purple circle"],
            templates=["{}", "a picture of {}"],
            measure="cosine",
        )
        [cross, star] = [
            (await client.score([CIRCLE], [text], templates=["{}", "a picture of {}"],
                                measure="logit")).scores[0, 0]
            for text in ("a black cross", "a yellow star")
        ]  # fmt: skip
    found = {name: one.score for name, one in by_name(judged.concepts).items()}
    share = float(softmax.scores[0, :2].astype(np.float64).sum())
    np.testing.assert_allclose(found["circle"], cosines.scores.max(), atol=1e-5)
    np.testing.assert_allclose(found["square"], share, rtol=2e-3, atol=1e-7)
    np.testing.assert_allclose(found["square-odds"], np.log(share / (1 - share)), rtol=1e-3)
    np.testing.assert_allclose(found["star"], star, atol=1e-2)
    np.testing.assert_allclose(found["cross"], 1 / (1 + np.exp(-cross)), atol=1e-6)


async def test_a_pair_is_judged_in_both_parts_each_by_its_own_threshold(folder: Path) -> None:
    async with served(policies=folder) as client:
        reply = await client.moderate(
            [(STAR, "a red circle"), (CIRCLE, "a yellow star"), "a red circle", "a cat"], "toys"
        )
    by_caption, by_image, text, harmless = reply.judgements
    assert by_caption.reached == ("star", "circle")
    assert (by_caption.verdict, by_caption.severity) == ("review", 4)
    assert by_image.reached == ("circle",)
    parts = [(one.concept, one.part, one.threshold) for one in by_image.concepts]
    assert [part for _, part, _ in parts] == ["image"] * 5 + ["text"]
    np.testing.assert_allclose(parts[0][2], 0.6, rtol=1e-6)
    np.testing.assert_allclose(parts[-1][2], 0.7, rtol=1e-6)
    assert text.verdict == "review"
    assert (harmless.verdict, harmless.severity, harmless.reached) == ("pass", 0, ())


async def test_pixels_are_judged_as_the_image_they_came_from(folder: Path) -> None:
    pixels = decode_image(CIRCLE, SPEC.image)
    async with served(policies=folder) as client:
        first, second, pair = (
            await client.moderate([CIRCLE, pixels, (pixels, "a cat")], "toys")
        ).judgements
    assert first == second
    assert pair.concepts[:5] == first.concepts


async def test_only_what_is_reached_is_told_where_asked_for(folder: Path) -> None:
    async with served(policies=folder) as client:
        [circle] = (await client.moderate([CIRCLE], "toys", reached_only=True)).judgements
    assert circle.verdict == "review"
    assert [one.concept for one in circle.concepts] == ["circle"]


async def test_what_cannot_be_judged_leaves_its_neighbours_alone(folder: Path) -> None:
    broken_pixels = np.zeros((3, 3, 3), np.uint8)
    async with served(policies=folder) as client:
        reply = await client.moderate(
            [b"broken", CIRCLE, (CIRCLE, "so " * 99), broken_pixels, (b"broken", "a")], "toys"
        )
    fields = [
        result.violations[0].field if isinstance(result, BadInput) else None
        for result in reply.results
    ]
    assert fields == ["inputs[0].image", None, "inputs[2].text", "inputs[3].pixels",
                      "inputs[4].image"]  # fmt: skip
    assert not isinstance(reply.results[1], DiptychError)
    with pytest.raises(BadInput):
        _ = reply.judgements


async def test_a_kind_of_input_without_threshold_is_refused_not_let_through(folder: Path) -> None:
    (folder / "toys.yaml").write_text(POLICY.replace("    text_threshold: 0.7\n", ""))
    async with served(policies=folder) as client:
        reply = await client.moderate([CIRCLE, "a red circle", (CIRCLE, "a red circle")], "toys")
    assert not isinstance(reply.results[0], DiptychError)
    for index in (1, 2):
        error = reply.results[index]
        assert isinstance(error, BadInput)
        assert str(error) == f"inputs[{index}].text: policy 'toys' has no threshold for texts"


async def test_an_unknown_policy_is_not_found_and_the_known_ones_named(folder: Path) -> None:
    async with served(policies=folder) as client:
        with pytest.raises(NotFound, match=r"'weapons' is not served with model 'shapes'.*toys"):
            await client.moderate([CIRCLE], "weapons")
    async with served() as client:
        assert await client.policies() == ()
        with pytest.raises(NotFound, match="there are: none"):
            await client.moderate([CIRCLE], "toys")


async def test_a_policy_can_be_read_by_whoever_is_judged_by_it(folder: Path) -> None:
    async with served(policies=folder) as client:
        [policy] = await client.policies()
    assert (policy.name, policy.version, policy.model) == ("toys", "7", "shapes")
    assert policy.description == "round and square things"
    circle, square, *_ = policy.concepts
    assert list(circle.templates) == ["{}", "a picture of {}"]
    assert (list(square.templates), list(square.contrast)) == (
        [],
        ["a red circle", "a yellow star"],
    )
    assert square.measure == embedding_pb2.MEASURE_SOFTMAX
    assert circle.HasField("text_threshold")
    assert not square.HasField("text_threshold")


async def test_an_input_goes_through_its_tower_once_however_many_concepts(folder: Path) -> None:
    many = "".join(
        f"  - {{name: c{n}, prompts: [thing {n}], threshold: 0.9, action: flag, severity: 1}}\n"
        for n in range(300)
    )
    (folder / "toys.yaml").write_text(POLICY + many)
    async with faulty(policies=folder) as server, server.client() as client:
        server.engine.batches.clear()
        [circle] = (await client.moderate([CIRCLE], "toys")).judgements
        [embedded] = (await client.embed([CIRCLE])).vectors
        assert server.engine.batches == [("image", 1)]
    assert len(circle.concepts) == 305
    assert embedded.shape == (SPEC.embed_dim,)


async def test_sixty_four_at_once_are_judged_as_each_alone(folder: Path) -> None:
    pictures = [CIRCLE, SQUARE, STAR] * 21 + ["a red circle"]
    async with served(policies=folder, image_cache_bytes=0, text_cache_bytes=0) as client:
        together = (await client.moderate(pictures, "toys")).judgements
        alone = [
            (await client.moderate([picture], "toys")).judgements[0] for picture in pictures[-4:]
        ]
    assert [one.verdict for one in together[-4:]] == [one.verdict for one in alone]
    for one, other in zip(together[-4:], alone, strict=True):
        np.testing.assert_allclose(
            [c.score for c in one.concepts], [c.score for c in other.concepts], rtol=1e-3, atol=1e-4
        )


async def test_over_long_texts_are_cut_where_asked_for(folder: Path) -> None:
    async with served(policies=folder) as client:
        [judged] = (
            await client.moderate(["a red circle " * 30], "toys", Options(truncate=True))
        ).judgements
    assert len(judged.concepts) == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (POLICY.replace("severity: 8", "severity: 80"), "concept 'square': severity: "),
        (POLICY.replace("a black cross", "cross " * 99), "concept 'cross': prompts.0..text: is "),
        (f"{POLICY}fingerprint: {'a' * 64}\n", "fingerprint: calibrated on aaaa"),
    ],
)
async def test_a_bad_policy_stops_the_start_and_says_where(
    folder: Path, text: str, problem: str
) -> None:
    (folder / "toys.yaml").write_text(text)
    with pytest.raises(BadRepository, match=problem):
        async with served(policies=folder):
            pytest.fail("served")


async def test_large_batches_against_many_concepts_are_measured_alike(folder: Path) -> None:
    many = "".join(
        f"  - {{name: c{n}, prompts: [thing {n}], threshold: 0.9, action: flag, severity: 1}}\n"
        for n in range(400)
    )
    (folder / "toys.yaml").write_text(POLICY + many)
    async with served(policies=folder) as client:
        large = (await client.moderate([CIRCLE, SQUARE] * 30, "toys")).judgements
        [small] = (await client.moderate([CIRCLE], "toys")).judgements
        vectors = (await client.embed([CIRCLE, "a picture of thing 7", "thing 7"])).vectors
    np.testing.assert_allclose(
        [one.score for one in large[-2].concepts], [one.score for one in small.concepts], atol=1e-3
    )
    label = scoring.ensemble(vectors[1:].astype(np.float32))
    np.testing.assert_allclose(by_name(small.concepts)["c7"].score, vectors[0] @ label, atol=1e-4)
