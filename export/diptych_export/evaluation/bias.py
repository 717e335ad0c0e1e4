"""A policy and groups of inputs in, how its thresholds treat each group out.

A threshold that is right on average can fail a group. Of every concept and group: the share that
reaches the threshold, and, where it is said which should, the share of mistakes of either kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from diptych.concepts import EmbeddedPolicy
from diptych.contract import Tower
from diptych_export.data.pairs import Reject
from diptych_export.errors import BadData
from diptych_export.evaluation.calibrating import Scored
from diptych_export.evaluation.judged import Row
from diptych_export.thresholds import Interval, Truth, Values, drawn_shares, interval

RateName: TypeAlias = Literal["flag_rate", "false_negative_rate", "false_positive_rate"]

FEWEST = 20  # in a group: of fewer, one input more or less is a twentieth or more

_OF: dict[RateName, str] = {
    "flag_rate": "inputs",
    "false_negative_rate": "positives",
    "false_positive_rate": "negatives",
}


def worded(rate: RateName) -> str:
    return rate.replace("_", " ")


@dataclass(frozen=True, slots=True)
class Share:
    """A rate in one group."""

    part: int
    whole: int
    interval: Interval  # 95 % of the bootstrap's samples lie between

    @property
    def value(self) -> float:
        return self.part / self.whole


@dataclass(frozen=True, slots=True)
class Gap:
    """The groups furthest apart in one rate."""

    rate: RateName
    highest: str
    lowest: str
    value: float
    interval: Interval  # of that difference, widened for having picked it among all pairs

    @property
    def is_sure(self) -> bool:
        """Whether it is more than chance would make of groups of this size."""
        return self.interval.low > 0

    def __str__(self) -> str:
        low, high = self.interval.low, self.interval.high
        wide = f"{self.value:.3f} ({low:.3f} to {high:.3f})"
        if not self.is_sure:
            return f"{worded(self.rate)}: the widest gap is {wide}: chance would make as much"
        return f"{worded(self.rate)}: {self.highest!r} is above {self.lowest!r} by {wide}"


@dataclass(frozen=True, slots=True)
class Refused:
    """A rate that is not stated of a group, for want of inputs."""

    rate: RateName
    group: str
    found: int

    def __str__(self) -> str:
        has = f"has {self.found} {_OF[self.rate]}; {FEWEST} are needed"
        return f"{worded(self.rate)} of group {self.group!r}: {has}"


@dataclass(frozen=True, slots=True)
class Probe:
    """One concept, held against one kind of input."""

    concept: str
    tower: Tower
    threshold: float
    rates: Mapping[RateName, Mapping[str, Share]]  # by group, in order of name
    groups: tuple[str, ...]
    gaps: tuple[Gap, ...]
    refused: tuple[Refused, ...]
    missed: tuple[tuple[Row, float], ...]  # with its score, the lowest first: of the worst group

    def as_dict(self) -> dict[str, Any]:
        return {
            "concept": self.concept,
            "of": f"{self.tower}s",
            "threshold": self.threshold,
            "groups": {
                rate: {group: _share(share) for group, share in shares.items()}
                for rate, shares in self.rates.items()
            },
            "gaps": {gap.rate: _gap(gap) for gap in self.gaps},
            "refused": [str(one) for one in self.refused],
        }


@dataclass(frozen=True, slots=True)
class Bias:
    """What was found of a policy."""

    policy: str
    version: str
    digest: str  # of the policy
    probes: tuple[Probe, ...]
    rejects: Sequence[Reject]
    ungrouped: int  # inputs of no group, left out

    def as_dict(self) -> dict[str, Any]:
        return {
            "policy": self.policy,
            "version": self.version,
            "digest": self.digest,
            "concepts": [probe.as_dict() for probe in self.probes],
            "skipped": len(self.rejects),
            "ungrouped": self.ungrouped,
        }


def probe(policy: EmbeddedPolicy, data: Scored) -> Bias:
    """Hold every concept that has a threshold for a kind of input against the groups of that kind.

    Raises:
        BadData: of no concept there are two groups to compare.
    """
    groups = np.array([row.group for row in data.rows], dtype=np.object_)
    towers = np.array([row.tower for row in data.rows], dtype=np.object_)
    found = [
        _probe(policy, data, place, tower, groups, towers == tower)
        for tower in Tower
        for place in range(len(policy.sides[tower].concepts))
        if (towers == tower).any()
    ]
    if not any(one.gaps for one in found):
        said = [str(refused) for one in found for refused in one.refused]
        why = said[0] if said else "the policy has no threshold for them"
        raise BadData(f"no two groups can be compared: {why}")
    return Bias(
        policy=policy.policy.name,
        version=policy.policy.version,
        digest=policy.digest,
        probes=tuple(found),
        rejects=data.rejects,
        ungrouped=int((groups == "").sum()),
    )


def _probe(
    policy: EmbeddedPolicy, data: Scored, place: int, tower: Tower, groups: Any, own: Truth
) -> Probe:
    side = policy.sides[tower]
    concept = policy.policy.concepts[side.concepts[place]]
    threshold = float(side.thresholds[place])
    scores = data.scores[:, side.concepts[place]]
    reached = scores >= threshold
    truths = [row.truths.get(concept.name) for row in data.rows]
    is_of = np.array([truth is True for truth in truths])
    is_not = np.array([truth is False for truth in truths])
    counted: dict[RateName, tuple[Truth, Truth]] = {  # of which, what
        "flag_rate": (own, reached),
        "false_negative_rate": (own & is_of, ~reached),
        "false_positive_rate": (own & is_not, reached),
    }
    names = sorted({group for group in groups[own] if group})
    rates: dict[RateName, Mapping[str, Share]] = {}
    gaps: list[Gap] = []
    refused: list[Refused] = []
    for rate, (of, what) in counted.items():
        if not of.any():
            continue  # nothing is said of which should reach it, or which should not
        members = {name: of & (groups == name) for name in names}
        counts = {name: (int((at & what).sum()), int(at.sum())) for name, at in members.items()}
        few = {name: whole for name, (_, whole) in counts.items() if whole < FEWEST}
        refused += [Refused(rate, name, whole) for name, whole in few.items()]
        enough = {name: count for name, count in counts.items() if name not in few}
        rates[rate], gap = compare(rate, enough)
        gaps += [gap] if gap else []
    missed = _missed(data, scores, reached, groups, own & is_of, gaps)
    return Probe(
        concept=concept.name,
        tower=tower,
        threshold=threshold,
        groups=tuple(names),
        rates=rates,
        gaps=tuple(gaps),
        refused=tuple(refused),
        missed=missed,
    )


def compare(
    rate: RateName, counts: Mapping[str, tuple[int, int]]
) -> tuple[dict[str, Share], Gap | None]:
    """How many of how many, by group: each one's share, and between which the gap is widest.

    Intervals are of a bootstrap within each group (`thresholds.drawn_shares`).
    """
    rng = np.random.default_rng(0)
    drawn = {name: drawn_shares(*count, rng) for name, count in counts.items()}
    shares = {name: Share(*counts[name], interval(drawn[name])) for name in counts}
    if len(shares) < 2:
        return shares, None
    order = sorted(shares, key=lambda name: shares[name].value)
    lowest, highest = order[0], order[-1]
    # The widest of many differences is wide by chance alone: Bonferroni's correction.
    pairs = len(shares) * (len(shares) - 1) // 2
    sure = interval(drawn[highest] - drawn[lowest], 1 - 0.05 / pairs)
    value = shares[highest].value - shares[lowest].value
    return shares, Gap(rate, highest, lowest, value, sure)


def _missed(
    data: Scored, scores: Values, reached: Truth, groups: Any, of: Truth, gaps: Sequence[Gap]
) -> tuple[tuple[Row, float], ...]:
    for gap in gaps:
        if gap.rate == "false_negative_rate":
            places = np.flatnonzero(of & ~reached & (groups == gap.highest))
            order = places[np.argsort(scores[places], kind="stable")]
            return tuple((data.rows[place], float(scores[place])) for place in order)
    return ()


def _share(share: Share) -> dict[str, Any]:
    return {
        "rate": share.value,
        "interval": [share.interval.low, share.interval.high],
        "count": share.part,
        "of": share.whole,
    }


def _gap(gap: Gap) -> dict[str, Any]:
    return {
        "highest": gap.highest,
        "lowest": gap.lowest,
        "gap": gap.value,
        "interval": [gap.interval.low, gap.interval.high],
        "beyond_chance": gap.is_sure,
    }
