"""Score through a real socket, on the shipped model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diptych import scoring
from diptych.errors import BadInput, BadRepository, DiptychError
from diptych.wire import MeasureName, Options
from tests.drawing import PICTURES, encoded, red_circle
from tests.serving import SHAPES, served

CIRCLE = encoded(red_circle())
SQUARE = (PICTURES / "blue_square.jpg").read_bytes()
CAPTIONS = ["a red circle", "a blue square", "a green star"]
SPEC = SHAPES.spec


@pytest.mark.parametrize("measure", ["cosine", "logit", "softmax", "sigmoid", "clipscore"])
async def test_each_measure_is_computed_from_the_embedded_vectors(measure: MeasureName) -> None:
    async with served() as client:
        vectors = (await client.embed([CIRCLE, "a star", *CAPTIONS])).vectors
        reply = await client.score([CIRCLE, "a star"], CAPTIONS, measure=measure)
    expected = scoring.score(
        vectors[:2].astype(np.float32),
        vectors[2:].astype(np.float32),
        scoring.Measure[measure.upper()],
        scale=SPEC.logit_scale,
        bias=SPEC.logit_bias,
    )
    assert reply.measure == measure
    np.testing.assert_allclose(reply.scores, expected, rtol=1e-3, atol=1e-4)


async def test_the_measure_a_model_was_trained_with_is_the_default() -> None:
    async with served() as client:
        reply = await client.score([CIRCLE], CAPTIONS)
    assert reply.measure == SPEC.score
    np.testing.assert_allclose(reply.scores.sum(), 1.0, rtol=1e-5)


async def test_pairs_are_scored_one_by_one() -> None:
    async with served() as client:
        whole = await client.score([CIRCLE, SQUARE], CAPTIONS[:2], measure="cosine")
        pairs = await client.score([CIRCLE, SQUARE], CAPTIONS[:2], measure="cosine", pairwise=True)
    np.testing.assert_allclose(pairs.scores[:, 0], np.diagonal(whole.scores), atol=1e-5)


async def test_templates_are_ensembled() -> None:
    templates = ["a photo of {}", "a drawing of {}"]
    async with served() as client:
        parts = await client.embed([t.replace("{}", CAPTIONS[0]) for t in templates])
        [query] = (await client.embed([CIRCLE])).vectors
        reply = await client.score([CIRCLE], CAPTIONS, templates=templates, measure="cosine")
    mean = parts.vectors.mean(axis=0)
    expected = query @ (mean / np.linalg.norm(mean))
    np.testing.assert_allclose(reply.scores[0, 0], expected, atol=1e-5)


async def test_images_are_candidates_too_and_take_no_template() -> None:
    async with served() as client:
        vectors = (await client.embed([CIRCLE, SQUARE])).vectors
        reply = await client.score(
            [CIRCLE], [SQUARE, "a red circle"], templates=["a photo of {}"], measure="cosine"
        )
    np.testing.assert_allclose(reply.scores[0, 0], vectors[0] @ vectors[1], atol=1e-5)


async def test_only_the_best_are_kept_with_the_scores_of_the_whole_list() -> None:
    async with served() as client:
        whole = await client.score([CIRCLE, SQUARE], CAPTIONS, measure="softmax")
        best = await client.score([CIRCLE, SQUARE], CAPTIONS, measure="softmax", top_k=2)
    for all_of_them, kept in zip(whole.results, best.results, strict=True):
        assert not isinstance(all_of_them, DiptychError)
        assert not isinstance(kept, DiptychError)
        order = np.argsort(-all_of_them.values)[:2]
        assert kept.candidates == tuple(order)
        np.testing.assert_allclose(kept.values, all_of_them.values[order], rtol=1e-4)


async def test_a_bad_query_has_an_error_of_its_own() -> None:
    async with served() as client:
        reply = await client.score([b"broken", CIRCLE], CAPTIONS)
        none = await client.score([b"broken"], CAPTIONS)
    error = reply.results[0]
    assert isinstance(error, BadInput)
    assert error.violations[0].field == "queries[0].image"
    assert not isinstance(reply.results[1], DiptychError)
    assert isinstance(none.results[0], BadInput)


async def test_a_bad_candidate_fails_the_call_because_every_score_depends_on_it() -> None:
    async with served() as client:
        with pytest.raises(BadInput) as caught:
            await client.score([CIRCLE], ["a star", b"broken"])
    assert caught.value.violations[0].field == "candidates[1].image"


async def test_pair_by_pair_a_bad_candidate_fails_its_pair() -> None:
    async with served() as client:
        reply = await client.score(
            [CIRCLE, SQUARE], ["a star", b"broken"], measure="cosine", pairwise=True
        )
    assert not isinstance(reply.results[0], DiptychError)
    assert isinstance(reply.results[1], BadInput)


def write_labels(folder: Path, text: str) -> Path:
    (folder / "colours.yaml").write_text(text)
    return folder


GOOD = """
name: colours
version: "1"
templates: ["a {} circle", "a picture of a {} circle"]
labels: [red, green, blue]
"""


async def test_a_label_set_is_its_labels_in_its_templates(tmp_path: Path) -> None:
    async with served(labels=write_labels(tmp_path, GOOD)) as client:
        [listed] = (await client.models()).models[0].label_sets
        reply = await client.score([CIRCLE, SQUARE], label_set="colours", measure="cosine")
        inline = await client.score(
            [CIRCLE, SQUARE],
            ["red", "green", "blue"],
            templates=["a {} circle", "a picture of a {} circle"],
            measure="cosine",
        )
        short = await client.score(
            [CIRCLE], options=Options(dimensions=16), label_set="colours", top_k=1
        )
    assert (listed.name, listed.version, listed.size) == ("colours", "1", 3)
    assert reply.labels == ("red", "green", "blue")
    np.testing.assert_allclose(reply.scores, inline.scores, atol=1e-5)
    assert short.space.dimensions == 16


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (GOOD.replace("red", "green"), "labels: .*a label stands twice"),
        (GOOD.replace("a {} circle", "a circle"), "templates: .*must hold {} once"),
        (GOOD + "colour: red", "colour: "),
        (GOOD.replace("[red, green, blue]", "[]"), "labels: "),
        (GOOD.replace("red", "red " * 99), "labels.0..text: is"),
        ("name: [", "not YAML"),
        ("- a", "whole file"),
    ],
)
async def test_a_bad_label_set_stops_the_start_and_says_where(
    tmp_path: Path, text: str, problem: str
) -> None:
    with pytest.raises(BadRepository, match=problem):
        async with served(labels=write_labels(tmp_path, text)):
            pytest.fail("served")
