"""Replies of Moderate, written by hand: what protobuf reads is what its own messages would hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from diptych.concepts import EmbeddedPolicy, embed_policy
from diptych.contract import Tower
from diptych.errors import BadInput, EngineFailed
from diptych.gateway.judgement_bytes import VERDICTS, JudgementBytes
from diptych.gateway.opening import open_encoder
from diptych.gateway.status import to_status
from diptych.moderation import JudgedPart, Judgement, JudgementOutcome
from diptych.policies import Policy, Verdict
from diptych.v1 import moderation_pb2 as pb
from tests.serving import SHAPES, local

PARTS = {Tower.IMAGE: pb.PART_IMAGE, Tower.TEXT: pb.PART_TEXT}

# Names and prompts of one and of many bytes; thresholds that protobuf would leave out as zeros;
# concepts for images alone, for texts alone and for both.
POLICY = Policy.model_validate(
    {
        "name": "odd",
        "version": "1",
        "concepts": [
            {"name": "a", "prompts": ["ä"], "threshold": 0.0, "action": "flag", "severity": 1},
            {
                "name": "b" * 64,
                "prompts": ["a red circle", "many words " * 2 + "星" * 60, "c"],
                "threshold": 0.5,
                "text_threshold": -0.25,
                "action": "block",
                "severity": 10,
            },
            {"name": "c", "prompts": ["d", "e"], "text_threshold": 0, "action": "review",
             "severity": 5},
        ],
    }
)  # fmt: skip


@pytest.fixture
async def policy() -> EmbeddedPolicy:
    async with open_encoder(SHAPES, local()) as encoder:
        # More characters than the little model takes: only how they are written matters here.
        short = [
            concept.model_copy(update={"prompts": tuple(prompt[:9] for prompt in concept.prompts)})
            for concept in POLICY.concepts
        ]
        found = await embed_policy(encoder, POLICY.model_copy(update={"concepts": tuple(short)}))
    prompts = tuple(prompt for concept in POLICY.concepts for prompt in concept.prompts)
    return replace(found, policy=POLICY, prompts=prompts)


def part(
    policy: EmbeddedPolicy, tower: Tower, scores: list[float], nearest: list[int]
) -> JudgedPart:
    return JudgedPart.of(
        tower, policy.sides[tower], np.array(scores, np.float32), np.array(nearest)
    )


def expected(
    policy: EmbeddedPolicy, outcome: JudgementOutcome, reached_only: bool
) -> pb.ModerateResult:
    """By protobuf's own messages."""
    if not isinstance(outcome, Judgement):
        return pb.ModerateResult(error=to_status(outcome))
    judgement = pb.Judgement(verdict=VERDICTS[outcome.verdict], severity=outcome.severity)
    for one in outcome.parts:
        for place, index in enumerate(one.side.concepts):
            concept = policy.policy.concepts[index]
            score, threshold = one.scores[place], one.side.thresholds[place]
            if score < threshold and reached_only:
                continue
            judgement.concepts.add(
                concept=concept.name,
                part=PARTS[one.tower],
                score=score,
                threshold=threshold,
                margin=score - threshold,
                reached=bool(score >= threshold),
                action=VERDICTS[concept.action],
                severity=concept.severity,
                prompt=policy.prompts[one.nearest[place]],
            )
    return pb.ModerateResult(judgement=judgement)


@pytest.mark.parametrize("reached_only", [False, True])
def test_bytes_are_read_as_protobufs_own_messages(
    policy: EmbeddedPolicy, reached_only: bool
) -> None:
    outcomes: list[JudgementOutcome] = [
        Judgement(Verdict.FLAG, 1, (part(policy, Tower.IMAGE, [0.0, -1.0], [0, 3]),)),
        BadInput.at("inputs[1].image", "not a readable image"),
        Judgement(
            Verdict.BLOCK,
            10,
            (
                part(policy, Tower.IMAGE, [-0.5, 0.75], [0, 2]),
                part(policy, Tower.TEXT, [-0.25, -1e-30], [1, 5]),
            ),
        ),
        EngineFailed("no"),
        Judgement(Verdict.PASS, 0, (part(policy, Tower.TEXT, [-0.5, -0.5], [3, 4]),)),
    ]
    written = JudgementBytes(policy).results(outcomes, reached_only=reached_only)
    wanted = [expected(policy, outcome, reached_only) for outcome in outcomes]
    assert list(pb.ModerateResponse.FromString(written).results) == wanted
    assert sum(len(one.judgement.concepts) for one in wanted) == (3 if reached_only else 8)


def test_nothing_judged_is_nothing_written(policy: EmbeddedPolicy) -> None:
    assert JudgementBytes(policy).results([], reached_only=False) == b""
