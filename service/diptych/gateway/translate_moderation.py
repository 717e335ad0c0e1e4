"""The protobuf of moderation in, our own types out, and back. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Iterable

from diptych.concepts import EmbeddedPolicy
from diptych.contract import Tower
from diptych.gateway.status import to_status
from diptych.gateway.translate import to_pixels
from diptych.moderation import JudgedPart, Judgement, JudgementOutcome, Subject
from diptych.policies import Concept, Policy, Verdict
from diptych.v1 import moderation_pb2 as pb

VERDICTS = {
    Verdict.PASS: pb.VERDICT_PASS,
    Verdict.FLAG: pb.VERDICT_FLAG,
    Verdict.REVIEW: pb.VERDICT_REVIEW,
    Verdict.BLOCK: pb.VERDICT_BLOCK,
}
_PARTS = {Tower.IMAGE: pb.PART_IMAGE, Tower.TEXT: pb.PART_TEXT}


def to_subjects(messages: Iterable[pb.ModerateInput]) -> tuple[list[Subject], int]:
    """Each input as it stands in the message, and how many images and texts they are."""
    subjects = [_to_subject(message) for message in messages]
    return subjects, sum(len(subject.parts) for subject in subjects)


def from_judged(
    policy: EmbeddedPolicy, outcome: JudgementOutcome, reached_only: bool
) -> pb.ModerateResult:
    if not isinstance(outcome, Judgement):
        return pb.ModerateResult(error=to_status(outcome))
    judgement = pb.Judgement(verdict=VERDICTS[outcome.verdict], severity=outcome.severity)
    for part in outcome.parts:
        judgement.concepts.extend(_scores(policy, part, reached_only))
    return pb.ModerateResult(judgement=judgement)


def from_policy(policy: Policy, model: str) -> pb.Policy:
    return pb.Policy(
        name=policy.name,
        version=policy.version,
        description=policy.description,
        model=model,
        fingerprint=policy.fingerprint,
        concepts=[_from_concept(policy, concept) for concept in policy.concepts],
        examples=len(policy.examples),
    )


def _from_concept(policy: Policy, concept: Concept) -> pb.PolicyConcept:
    return pb.PolicyConcept(
        name=concept.name,
        prompts=concept.prompts,
        contrast=concept.contrast,
        templates=policy.templates_of(concept),
        measure=f"MEASURE_{concept.measure.upper()}",
        threshold=concept.threshold,
        text_threshold=concept.text_threshold,
        action=VERDICTS[concept.action],
        severity=concept.severity,
    )


def _scores(
    policy: EmbeddedPolicy, part: JudgedPart, reached_only: bool
) -> Iterable[pb.ConceptScore]:
    concepts, kind = policy.policy.concepts, _PARTS[part.tower]
    for index, score, threshold, margin, prompt in zip(
        part.side.concepts.tolist(),
        part.scores.tolist(),
        part.side.thresholds.tolist(),
        part.margins.tolist(),
        part.nearest.tolist(),
        strict=True,
    ):
        if reached_only and margin < 0:
            continue
        concept = concepts[index]
        yield pb.ConceptScore(
            concept=concept.name,
            part=kind,
            score=score,
            threshold=threshold,
            margin=margin,
            reached=margin >= 0,
            action=VERDICTS[concept.action],
            severity=concept.severity,
            prompt=policy.prompts[prompt],
        )


def _to_subject(message: pb.ModerateInput) -> Subject:
    text = message.text if message.HasField("text") else None
    kind = message.WhichOneof("picture")
    if kind is None:
        return Subject(None, text)
    return Subject(message.image if kind == "image" else to_pixels(message.pixels), text)
