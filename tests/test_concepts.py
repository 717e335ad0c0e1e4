"""A policy's concepts, measured: the same whatever else is measured with it."""

from __future__ import annotations

import numpy as np

from diptych.concepts import embed_policy
from diptych.gateway.opening import open_encoder
from diptych.policies import Policy
from diptych.scoring import unit
from tests.serving import SHAPES, local

COLOURS = ["red", "green", "blue", "yellow", "purple", "orange", "pink", "brown", "black"]
CONTRAST = ["a lawn", "a cat"]


def concept(number: int) -> dict[str, object]:
    measure = ("cosine", "logit", "softmax", "sigmoid")[number % 4]
    contrast = CONTRAST if measure == "softmax" or number % 8 == 1 else []
    prompts = [f"a {COLOURS[number % 9]} star {number}", "a circle", "a square"][: 1 + number % 3]
    return {
        "name": f"c{number}", "prompts": prompts, "measure": measure, "contrast": contrast,
        "threshold": 0.5, "action": "flag", "severity": 1,
    }  # fmt: skip


async def test_a_score_is_the_same_to_the_last_bit_alone_and_among_sixty_four() -> None:
    said = {"name": "many", "version": "1", "concepts": [concept(number) for number in range(90)]}
    async with open_encoder(SHAPES, local()) as encoder:
        policy = await embed_policy(encoder, Policy.model_validate(said))
    drawn = np.random.default_rng(0).normal(size=(64, SHAPES.spec.embed_dim))
    vectors = unit(drawn.astype(np.float32))
    scores, nearest = policy.measure(vectors)
    for row, vector in enumerate(vectors):
        alone, own = policy.measure(vector[np.newaxis])
        np.testing.assert_array_equal(alone[0], scores[row])
        np.testing.assert_array_equal(own[0], nearest[row])
    assert scores.dtype == np.float32
    owners = np.searchsorted(policy.starts, nearest, side="right") - 1
    np.testing.assert_array_equal(owners, np.broadcast_to(np.arange(90), owners.shape))
