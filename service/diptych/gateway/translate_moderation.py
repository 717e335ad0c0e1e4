"""Protobuf of moderation in, our own types out; policies back. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Iterable

from diptych.gateway.judgement_bytes import VERDICTS
from diptych.gateway.translate import to_pixels
from diptych.moderation import Subject
from diptych.policies import Concept, Policy
from diptych.v1 import moderation_pb2 as pb


def to_subjects(messages: Iterable[pb.ModerateInput]) -> tuple[list[Subject], int]:
    """Each input as it stands in the message, and how many images and texts they are."""
    subjects = [_to_subject(message) for message in messages]
    return subjects, sum(len(subject.parts) for subject in subjects)


def from_policy(policy: Policy, model: str) -> pb.Policy:
    return pb.Policy(
        name=policy.name,
        version=policy.version,
        description=policy.description,
        model=model,
        fingerprint=policy.fingerprint,
        concepts=[_from_concept(policy, concept) for concept in policy.concepts],
        examples=len(policy.examples),
        digest=policy.digest,
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


def _to_subject(message: pb.ModerateInput) -> Subject:
    text = message.text if message.HasField("text") else None
    kind = message.WhichOneof("picture")
    if kind is None:
        return Subject(None, text)
    return Subject(message.image if kind == "image" else to_pixels(message.pixels), text)
