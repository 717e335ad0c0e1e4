"""What towers answered in; the tensors a profile declares out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from diptych.batching import Answer
from diptych.contract import Tower
from diptych.engines.base import Array
from diptych.profiles import Profile, TensorRule, output_of
from diptych.prompts import Mask, Weights, weigh
from diptych.states import Outputs


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text under one encoder."""

    chunks: list[Answer[Outputs]]
    mask: Mask  # [chunks, L]
    weights: Weights  # [chunks, L]


def text_tensors(
    rule: TensorRule,
    positives: Sequence[Mapping[int, Encoded]],
    negatives: Sequence[Mapping[int, Encoded] | None],
    skips: tuple[int, int],
) -> dict[str, Array]:
    """A tensor and, where there are `negatives`, its negative; None is one that is to be zeros.

    `skips`: layers left out of either.
    """
    own = [_text_tensor(rule, one, skips[0]) for one in positives]
    found = {rule.name: np.stack(own)}
    if rule.negative and negatives:
        zeros = np.zeros_like(own[0])
        found[rule.negative] = np.stack(
            [zeros if one is None else _text_tensor(rule, one, skips[1]) for one in negatives]
        )
    return found


def image_tensors(rule: TensorRule, positive: Array, negative: Array | None) -> dict[str, Array]:
    """A tensor of images [N, …] and, unless it is None, its negative."""
    if rule.stacked:
        return {rule.name: np.stack([positive] if negative is None else [negative, positive])}
    found = {rule.name: positive[None] if rule.keep_axis else positive}
    if rule.negative and negative is not None:
        found[rule.negative] = negative[None] if rule.keep_axis else negative
    return found


def outputs_of(profile: Profile, encoder: int, skip: int) -> list[str]:
    """What the tensors of a profile take of one encoder, by the outputs' names; sorted."""
    tower = profile.encoders[encoder].tower
    own = (rule for rule in profile.tensors if encoder in rule.encoders)
    names = {output_of(tower, rule, skip) for rule in own}
    return sorted(name for name in names if name is not None)


def _text_tensor(rule: TensorRule, encoded: Mapping[int, Encoded], skip: int) -> Array:
    """Of one text: [T, W], [T] of a mask, [W] or [1, W] of a vector."""
    own = [encoded[number] for number in rule.encoders]
    if rule.take == "mask":
        return own[0].mask.reshape(-1)
    name = output_of(Tower.TEXT, rule, skip) or ""
    if rule.take != "states":
        vector = np.concatenate([one.chunks[0].result[name] for one in own])
        return vector[None] if rule.keep_axis else vector
    parts = []
    for one in own:
        states = np.concatenate([chunk.result[name] for chunk in one.chunks])
        weigh(states, one.weights.reshape(-1))
        parts.append(states)
    whole = np.concatenate(parts, axis=1)
    right = max(0, (rule.width or 0) - whole.shape[1])
    return np.pad(whole, ((0, rule.zero_tokens), (0, right)))
