"""A policy and inputs in, judgements out: what `Moderate` does, without the protobuf."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from diptych.concepts import STRENGTH, EmbeddedPolicy, Indexes, Side
from diptych.contract import Tower
from diptych.encoder import Embedded, Encoder, Input, Outcome, Reading
from diptych.errors import BadInput, EngineFailed
from diptych.policies import Verdict
from diptych.scoring import Scores

INLINE_SCORES = 20_000  # fewer take less than a millisecond; more would hold up the event loop


@dataclass(frozen=True, slots=True)
class Subject:
    """What is to be judged: an image, a text, or an image with its caption."""

    image: Input | BadInput | None = None
    text: str | None = None

    @property
    def parts(self) -> list[tuple[Tower, Input | BadInput]]:
        found: list[tuple[Tower, Input | BadInput]] = []
        if self.image is not None:
            found.append((Tower.IMAGE, self.image))
        if self.text is not None:
            found.append((Tower.TEXT, self.text))
        return found


@dataclass(frozen=True, slots=True)
class JudgedPart:
    """One image or text, held against the K concepts of its side."""

    tower: Tower
    side: Side
    scores: Scores  # [K]
    nearest: Indexes  # [K], into `EmbeddedPolicy.prompts`
    margins: Scores  # [K], score - threshold
    reached: Indexes  # where in [K] the margin is 0 or more

    @classmethod
    def of(cls, tower: Tower, side: Side, scores: Scores, nearest: Indexes) -> JudgedPart:
        margins = scores - side.thresholds
        return cls(tower, side, scores, nearest, margins, np.flatnonzero(margins >= 0))

    @property
    def concepts(self) -> list[int]:
        """Those reached, as indexes into the policy's."""
        found: list[int] = self.side.concepts[self.reached].tolist()
        return found


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a policy says of one input."""

    verdict: Verdict
    severity: int  # the highest of the concepts reached; 0 where none is
    parts: tuple[JudgedPart, ...]  # the image before the text

    def concepts(self, policy: EmbeddedPolicy) -> list[str]:
        """The names of those reached, in the policy's order."""
        reached = sorted({index for part in self.parts for index in part.concepts})
        return [policy.policy.concepts[index].name for index in reached]


JudgementOutcome: TypeAlias = Judgement | BadInput | EngineFailed


@dataclass(frozen=True, slots=True)
class Judged:
    results: list[JudgementOutcome]  # one a subject
    embedded: list[Outcome]  # every part, for its timings


async def moderate(
    encoder: Encoder,
    policy: EmbeddedPolicy,
    subjects: Sequence[Subject | BadInput],
    reading: Reading,
) -> Judged:
    """Judge each subject; one that cannot be read has an error of its own.

    Raises:
        DiptychError: as `Encoder.embed_all`.
    """
    known = [_judgeable(policy, subject) for subject in subjects]
    parts = [
        (index, tower, item)
        for index, subject in enumerate(known)
        if isinstance(subject, Subject)
        for tower, item in subject.parts
    ]
    places = [f"inputs[{index}]" for index, _, _ in parts]
    outcomes = await encoder.embed_all([item for _, _, item in parts], reading, places)
    with encoder.scoring():
        judged = await _judge_all(policy, [tower for _, tower, _ in parts], outcomes)
    by_subject: list[list[JudgedPart | BadInput | EngineFailed]] = [[] for _ in known]
    for (index, _, _), part in zip(parts, judged, strict=True):
        by_subject[index].append(part)
    results = [
        subject.within(f"inputs[{index}]")
        if isinstance(subject, BadInput)
        else _together(policy, by_subject[index])
        for index, subject in enumerate(known)
    ]
    return Judged(results, outcomes)


async def _judge_all(
    policy: EmbeddedPolicy, towers: Sequence[Tower], outcomes: Sequence[Outcome]
) -> list[JudgedPart | BadInput | EngineFailed]:
    vectors = [outcome.vector for outcome in outcomes if isinstance(outcome, Embedded)]
    if not vectors:
        return [outcome for outcome in outcomes if not isinstance(outcome, Embedded)]
    stack = np.stack(vectors)
    if len(stack) * (len(policy.vectors) + len(policy.contrast.vectors)) <= INLINE_SCORES:
        scores, nearest = policy.measure(stack)
    else:
        scores, nearest = await asyncio.to_thread(policy.measure, stack)
    rows = iter(zip(scores, nearest, strict=True))
    return [
        _part(policy.sides[tower], tower, *next(rows)) if isinstance(outcome, Embedded) else outcome
        for tower, outcome in zip(towers, outcomes, strict=True)
    ]


def _part(side: Side, tower: Tower, scores: Scores, nearest: Indexes) -> JudgedPart:
    return JudgedPart.of(tower, side, scores[side.concepts], nearest[side.concepts])


def _together(
    policy: EmbeddedPolicy, parts: Iterable[JudgedPart | BadInput | EngineFailed]
) -> JudgementOutcome:
    judged: list[JudgedPart] = []
    for part in parts:
        if not isinstance(part, JudgedPart):
            return part
        judged.append(part)
    reached = [index for part in judged for index in part.concepts]
    if not reached:
        return Judgement(Verdict.PASS, 0, tuple(judged))
    strength, severity = policy.strength[reached].max(), policy.severity[reached].max()
    return Judgement(STRENGTH[strength], int(severity), tuple(judged))


def _judgeable(policy: EmbeddedPolicy, subject: Subject | BadInput) -> Subject | BadInput:
    """The subject, unless the policy has nothing to hold one of its parts against."""
    if isinstance(subject, BadInput):
        return subject
    if not subject.parts:
        return BadInput.at("picture", "an image, pixels or a text is required")
    for tower, _ in subject.parts:
        if not len(policy.sides[tower].concepts):
            problem = f"policy {policy.policy.name!r} has no threshold for {tower}s"
            return BadInput.at(str(tower), problem)
    return subject
