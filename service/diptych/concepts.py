"""A policy in one space: its prompts embedded once, its concepts measured all at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from diptych.contract import Matrix, Priority, Tower
from diptych.encoder import Encoder, Reading
from diptych.errors import BadInput, BadRepository, one_reason
from diptych.labels import embed_in_templates, vector_of
from diptych.policies import Concept, Policy, Verdict
from diptych.scoring import Scores

Indexes: TypeAlias = npt.NDArray[np.intp]

STRENGTH = tuple(Verdict)  # from the mildest to the strongest

_BULK = Reading(priority=Priority.BULK)


@dataclass(frozen=True, slots=True)
class Side:
    """The concepts that one kind of input is held against."""

    concepts: Indexes  # [K], into the policy's
    thresholds: Scores  # [K]


@dataclass(frozen=True, slots=True)
class _Contrast:
    """The concepts that are measured against something."""

    concepts: Indexes  # [K], into the policy's
    prompts: Indexes  # columns of their prompts, concept by concept
    prompt_starts: Indexes  # [K], where each concept's begin in `prompts`
    vectors: Matrix  # [Q, D], of what they are measured against, concept by concept
    starts: Indexes  # [K], where each concept's begin in `vectors`


# Compared by identity: so that what is made of it once can be kept for as long as it is.
@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class EmbeddedPolicy:
    """A policy and the vectors of its prompts in one space."""

    policy: Policy
    digest: str  # of the policy
    sides: dict[Tower, Side]
    prompts: tuple[str, ...]  # [P], concept by concept
    vectors: Matrix  # [P, D], unit rows
    starts: Indexes  # [C], where each concept's prompts begin
    counts: Indexes  # [C], how many they are
    contrast: _Contrast
    scale: np.float32
    bias: np.float32
    is_logit: npt.NDArray[np.bool_]  # [C]: the score is not the cosine but made of logits
    is_share: npt.NDArray[np.bool_]  # [C]: and then squashed into 0..1
    strength: npt.NDArray[np.intp]  # [C], of the action
    severity: npt.NDArray[np.intp]  # [C]

    def measure(self, vectors: Matrix) -> tuple[Scores, Indexes]:
        """Scores [N, C] of unit vectors [N, D], and which of `prompts` [N, C] is nearest to each.

        With logits l = scale * cosine + bias of prompts p and of contrast c, a softmax over both
        gives the prompts sigmoid(logsumexp(l_p) - logsumexp(l_c)); the difference is its logit.
        """
        cosines = np.clip(_products(vectors, self.vectors), -1.0, 1.0)
        scores, nearest = self._nearest(cosines)
        if not self.is_logit.any():
            return scores, nearest
        logits = self.scale * scores + self.bias
        if len(against := self.contrast.concepts):
            own = self.scale * cosines[:, self.contrast.prompts]
            other = self.scale * _products(vectors, self.contrast.vectors)
            logits[:, against] = np.logaddexp.reduceat(
                own, self.contrast.prompt_starts, axis=1
            ) - np.logaddexp.reduceat(other, self.contrast.starts, axis=1)
        # tanh does not overflow where exp(-x) would.
        shares = np.float32(0.5) * (np.float32(1) + np.tanh(np.float32(0.5) * logits))
        scores = np.where(self.is_share, shares, np.where(self.is_logit, logits, scores))
        return scores, nearest

    def _nearest(self, cosines: Scores) -> tuple[Scores, Indexes]:
        """The highest of each concept's prompts, and the first that has it."""
        columns = np.arange(len(self.prompts))
        if len(self.starts) == len(columns):
            return cosines, np.repeat(columns[np.newaxis], len(cosines), axis=0)
        best: Scores = np.maximum.reduceat(cosines, self.starts, axis=1)
        is_best = cosines == np.repeat(best, self.counts, axis=1)
        first = np.minimum.reduceat(np.where(is_best, columns, len(columns)), self.starts, axis=1)
        return best, first


def _products(rows: Matrix, prompts: Matrix) -> Scores:
    """[N, P], row by row: the last bits of a product of matrices depend on how many rows it has,
    and an input must not be judged otherwise for what else was in the call."""
    return np.stack([prompts @ row for row in rows])


async def embed_policy(encoder: Encoder, policy: Policy) -> EmbeddedPolicy:
    """Embed every prompt once, for one space.

    Raises:
        BadRepository: a prompt does not fit the model's context.
        EngineError: the engine is away, or failed.
    """
    against = [index for index, one in enumerate(policy.concepts) if one.contrast]
    own, contrast = await _embed_all(encoder, policy, against)
    starts = _starts(own)
    measures = [concept.measure for concept in policy.concepts]
    spec = encoder.spec
    return EmbeddedPolicy(
        policy=policy,
        digest=policy.digest,
        sides={tower: _side(policy, tower) for tower in Tower},
        prompts=tuple(prompt for concept in policy.concepts for prompt in concept.prompts),
        vectors=np.concatenate(own),
        starts=starts,
        counts=np.array([len(prompts) for prompts in own], np.intp),
        contrast=_Contrast(
            concepts=np.array(against, np.intp),
            prompts=np.array([starts[i] + k for i in against for k in range(len(own[i]))], np.intp),
            prompt_starts=_starts([own[index] for index in against]),
            vectors=np.concatenate(contrast or [np.zeros((0, spec.embed_dim), np.float32)]),
            starts=_starts(contrast),
        ),
        scale=np.float32(spec.logit_scale),
        bias=np.float32(spec.logit_bias),
        is_logit=np.array([measure != "cosine" for measure in measures]),
        is_share=np.array([measure in ("softmax", "sigmoid") for measure in measures]),
        strength=np.array([STRENGTH.index(concept.action) for concept in policy.concepts]),
        severity=np.array([concept.severity for concept in policy.concepts]),
    )


async def _embed_all(
    encoder: Encoder, policy: Policy, against: Sequence[int]
) -> tuple[list[Matrix], list[Matrix]]:
    """Of every concept its prompts, of those `against` something what that is; all side by side."""
    with one_reason():
        async with asyncio.TaskGroup() as group:
            own = [
                group.create_task(_embed(encoder, policy, one, one.prompts, "prompts"))
                for one in policy.concepts
            ]
            contrast = [
                group.create_task(_embed(encoder, policy, one, one.contrast, "contrast"))
                for one in (policy.concepts[index] for index in against)
            ]
    return [task.result() for task in own], [task.result() for task in contrast]


async def _embed(
    encoder: Encoder, policy: Policy, concept: Concept, texts: Sequence[str], field: str
) -> Matrix:
    templates = policy.templates_of(concept)
    found = await embed_in_templates(encoder, texts, templates, _BULK, field)
    try:
        return np.stack([vector_of(outcome) for outcome in found])
    except BadInput as exc:
        raise BadRepository(f"policy {policy.name}: concept {concept.name!r}: {exc}") from exc


def _side(policy: Policy, tower: Tower) -> Side:
    thresholds = [
        concept.threshold if tower is Tower.IMAGE else concept.text_threshold
        for concept in policy.concepts
    ]
    judged = [(index, value) for index, value in enumerate(thresholds) if value is not None]
    return Side(
        np.array([index for index, _ in judged], np.intp),
        np.array([value for _, value in judged], np.float32),
    )


def _starts(groups: Sequence[Matrix]) -> Indexes:
    counts = [len(group) for group in groups]
    return np.cumsum([0, *counts[:-1]], dtype=np.intp)[: len(counts)]
