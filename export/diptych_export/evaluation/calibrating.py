"""A policy and labelled inputs in, its thresholds and how good they are out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diptych.concepts import EmbeddedPolicy
from diptych.contract import Priority, Tower
from diptych.encoder import Embedded, Encoder, Reading
from diptych.errors import BadInput
from diptych_export.data.pairs import Reject
from diptych_export.errors import BadData
from diptych_export.evaluation.judged import Row
from diptych_export.thresholds import (
    Confusion,
    Found,
    Interval,
    Truth,
    Values,
    Wanted,
    confusion,
    find,
)

_AT_ONCE = 128  # inputs read and embedded side by side

_READING = Reading(priority=Priority.BULK)


@dataclass(frozen=True, slots=True)
class Scored:
    """Labelled inputs and what the policy measures of them."""

    rows: list[Row]  # [N], those that can be embedded
    scores: Values  # [N, C]
    rejects: list[Reject]

    def of(self, concept: int, name: str, tower: Tower) -> Labelled:
        """The inputs of one kind of which is said whether they are of one concept."""
        own = [
            index
            for index, row in enumerate(self.rows)
            if row.tower is tower and name in row.truths
        ]
        truth = np.array([self.rows[index].truths[name] for index in own], dtype=np.bool_)
        return Labelled([self.rows[index] for index in own], self.scores[own, concept], truth)


@dataclass(frozen=True, slots=True)
class Labelled:
    """The inputs of one kind, held against one concept."""

    rows: list[Row]  # [N]
    scores: Values  # [N]
    truth: Truth  # [N]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """One threshold: of one concept, for one kind of input."""

    concept: str
    tower: Tower
    before: float | None  # the policy's threshold so far
    found: Found
    data: Labelled
    held_out: Labelled | None  # inputs that the threshold was not found on

    @property
    def held_out_confusion(self) -> Confusion | None:
        if self.held_out is None or not len(self.held_out.truth):
            return None
        return confusion(self.held_out.scores, self.held_out.truth, self.found.threshold)

    def as_dict(self) -> dict[str, Any]:
        found, held_out = self.found, self.held_out_confusion
        said: dict[str, Any] = {
            "concept": self.concept,
            "of": f"{self.tower}s",
            "threshold_before": self.before,
            "threshold": found.threshold,
            "threshold_interval": _pair(found.interval),
            **_worth(found.confusion),
            "precision_interval": _pair(found.precision),
            "recall_interval": _pair(found.recall),
        }
        if held_out is not None:
            said["held_out"] = _worth(held_out)
        return said


async def score_rows(encoder: Encoder, policy: EmbeddedPolicy, rows: Sequence[Row]) -> Scored:
    """Measure every row; one that cannot be read is left out and said.

    Raises:
        BadData: none can be read.
    """
    kept: list[Row] = []
    vectors = []
    rejects: list[Reject] = []
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        inputs = [_read(row) for row in part]
        outcomes = await encoder.embed_all(inputs, _READING, ["input"] * len(part))
        for row, outcome in zip(part, outcomes, strict=True):
            if isinstance(outcome, Embedded):
                kept.append(row)
                vectors.append(outcome.vector)
            else:
                rejects.append(Reject(row.id, str(outcome)))
    if not kept:
        raise BadData(f"none of {len(rows)} inputs can be used; the first: {rejects[:1]}")
    scores, _ = policy.measure(np.stack(vectors))
    return Scored(kept, scores.astype(np.float64), rejects)


def calibrate(
    policy: EmbeddedPolicy,
    data: Scored,
    held_out: Scored | None,
    wanted: Wanted,
    at_least: float,
) -> list[Calibrated]:
    """A threshold for each concept and kind of input that the data says something of.

    Raises:
        BadData: naming the concept for which the data does not support one.
    """
    done = []
    for index, concept in enumerate(policy.policy.concepts):
        before = {Tower.IMAGE: concept.threshold, Tower.TEXT: concept.text_threshold}
        for tower in Tower:
            own = data.of(index, concept.name, tower)
            if not len(own.truth):
                continue
            try:
                found = find(own.scores, own.truth, wanted, at_least)
            except BadData as exc:
                raise BadData(f"concept {concept.name!r}, {tower}s: {exc}") from exc
            other = held_out.of(index, concept.name, tower) if held_out else None
            done.append(Calibrated(concept.name, tower, before[tower], found, own, other))
    return done


def _read(row: Row) -> bytes | str | BadInput:
    try:
        return row.read()
    except BadData as exc:
        return BadInput.at(str(row.tower), str(exc))


def _worth(found: Confusion) -> dict[str, float | int]:
    return {
        "precision": found.precision,
        "recall": found.recall,
        "true_positives": found.true_positives,
        "false_positives": found.false_positives,
        "false_negatives": found.false_negatives,
        "true_negatives": found.true_negatives,
    }


def _pair(interval: Interval) -> list[float]:
    return [interval.low, interval.high]
