"""What is said and heard of moderation, as Python in place of protobuf. For both clients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

from diptych import wire
from diptych.errors import DiptychError
from diptych.v1 import moderation_pb2 as pb
from diptych.wire import Input, Options, Space, Timings

# What is judged: an image or a text, or an image with its caption.
Subject: TypeAlias = Input | tuple[Input, str]
VerdictName: TypeAlias = Literal["pass", "flag", "review", "block"]

_VERDICTS: dict[int, VerdictName] = {
    pb.VERDICT_PASS: "pass",
    pb.VERDICT_FLAG: "flag",
    pb.VERDICT_REVIEW: "review",
    pb.VERDICT_BLOCK: "block",
}


@dataclass(frozen=True, slots=True)
class ConceptScore:
    """One concept of the policy, held against an image or a text."""

    concept: str
    part: Literal["image", "text"]
    score: float
    threshold: float
    margin: float  # score - threshold
    reached: bool
    action: VerdictName  # what the policy asks for where it is reached
    severity: int  # 1..10, likewise
    prompt: str  # the concept's prompt nearest to the input


@dataclass(frozen=True)
class Judgement:
    """What the policy says of one input."""

    verdict: VerdictName
    severity: int  # the highest of the concepts reached; 0 where none is
    message: pb.Judgement = field(repr=False)  # as it came

    @cached_property
    def concepts(self) -> tuple[ConceptScore, ...]:
        """In the policy's order, those of the image first. Made when first asked for: of hundreds
        of concepts they take longer than all the rest of a call."""
        return tuple(map(_score, self.message.concepts))

    @property
    def reached(self) -> tuple[str, ...]:
        """The names of the concepts reached, each once."""
        return tuple(dict.fromkeys(one.concept for one in self.message.concepts if one.reached))


@dataclass(frozen=True, slots=True)
class ModerateReply:
    """One result per input, in order: a judgement, or why there is none."""

    space: Space
    policy: str
    version: str  # of the policy
    digest: str  # of all in the policy that verdicts depend on
    results: tuple[Judgement | DiptychError, ...]
    timings: Timings

    @property
    def judgements(self) -> tuple[Judgement, ...]:
        """One per input.

        Raises:
            DiptychError: of the first input that has none.
        """
        return tuple(_judgement_of(result) for result in self.results)


def moderate_request(
    subjects: Sequence[Subject], policy: str, options: Options, *, reached_only: bool
) -> pb.ModerateRequest:
    return pb.ModerateRequest(
        options=options.message(),
        policy=policy,
        inputs=[_to_input(subject) for subject in subjects],
        reached_only=reached_only,
    )


def moderate_reply(message: pb.ModerateResponse) -> ModerateReply:
    return ModerateReply(
        space=Space.of(message.space),
        policy=message.policy,
        version=message.policy_version,
        digest=message.policy_digest,
        results=tuple(_result(result) for result in message.results),
        timings=Timings.of(message.timings),
    )


def _to_input(subject: Subject) -> pb.ModerateInput:
    first, caption = subject if isinstance(subject, tuple) else (subject, None)
    found = wire.to_input(first)
    if found.HasField("text"):
        if caption is not None:
            raise TypeError("a caption belongs to an image, not to a text")
        return pb.ModerateInput(text=found.text)
    if found.HasField("image"):
        return pb.ModerateInput(image=found.image, text=caption)
    return pb.ModerateInput(pixels=found.pixels, text=caption)


def _result(message: pb.ModerateResult) -> Judgement | DiptychError:
    if message.HasField("error"):
        return wire.to_error(message.error)
    found = message.judgement
    return Judgement(_verdict(found.verdict), found.severity, found)


def _score(message: pb.ConceptScore) -> ConceptScore:
    return ConceptScore(
        concept=message.concept,
        part="image" if message.part == pb.PART_IMAGE else "text",
        score=message.score,
        threshold=message.threshold,
        margin=message.margin,
        reached=message.reached,
        action=_verdict(message.action),
        severity=message.severity,
        prompt=message.prompt,
    )


def _verdict(verdict: pb.Verdict) -> VerdictName:
    return _VERDICTS[verdict]


def _judgement_of(result: Judgement | DiptychError) -> Judgement:
    if isinstance(result, DiptychError):
        raise result
    return result
