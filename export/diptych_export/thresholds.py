"""Scores and what is true of them in, thresholds with what they are worth out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from diptych_export.errors import BadData

Wanted: TypeAlias = Literal["precision", "recall"]
Values: TypeAlias = npt.NDArray[np.float64]
Truth: TypeAlias = npt.NDArray[np.bool_]

_FEWEST = 20  # positives, and negatives, whatever is wanted
_SAMPLES = 1000  # of the bootstrap
_AT_ONCE = 2_000_000  # weights held at a time
_DRAWN = 20_000  # of a share


@dataclass(frozen=True, slots=True)
class Interval:
    """Where 95 % of the bootstrap's samples lie."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often a threshold was right, and in which way not."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @property
    def precision(self) -> float:
        """Of those that reached it, the share that should; 1 where none reached it."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Of those that should, the share that reached it."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)


@dataclass(frozen=True, slots=True)
class Found:
    """A threshold, and what it is worth on the data it was found on."""

    threshold: float
    interval: Interval  # of the threshold
    confusion: Confusion
    precision: Interval  # of this threshold
    recall: Interval


@dataclass(frozen=True, slots=True)
class Curve:
    """What every threshold between two neighbouring scores is worth, from the highest down."""

    thresholds: Values  # [K]
    precision: Values  # [K]
    recall: Values  # [K]


def curve(scores: Values, truth: Truth) -> Curve:
    """Scores [N] and whether each should reach the threshold [N]; at least one should."""
    order, ends, thresholds = _sorted(scores)
    hits = np.cumsum(truth[order])[ends]
    return Curve(thresholds, hits / (ends + 1), hits / truth.sum())


def confusion(scores: Values, truth: Truth, threshold: float) -> Confusion:
    reached = scores >= threshold
    return Confusion(
        true_positives=int((reached & truth).sum()),
        false_positives=int((reached & ~truth).sum()),
        false_negatives=int((~reached & truth).sum()),
        true_negatives=int((~reached & ~truth).sum()),
    )


def find(scores: Values, truth: Truth, wanted: Wanted, at_least: float, *, seed: int = 0) -> Found:
    """The lowest threshold of that precision, or the highest of that recall.

    Its interval is the percentile bootstrap's (Efron and Tibshirani, 1993, §13.3) over samples
    of the rows.

    Raises:
        BadData: the data cannot support one: so few positives or negatives, or so few inputs
            above it, that a single mistake would weigh more than is allowed; or none is so good.
    """
    _check_enough(truth, at_least)
    order, ends, thresholds = _sorted(scores)
    ordered = truth[order]
    weights = np.ones((1, len(scores)))
    [place] = _places(ordered, ends, weights, wanted, at_least)
    found = curve(scores, truth)
    if place < 0:
        best = f"the best is {found.precision.max():.3f}"
        raise BadData(f"no threshold has a precision of {at_least:g}; {best}")
    above = int(ends[place]) + 1
    if wanted == "precision" and above < (needed := _needed(at_least)):
        raise BadData(
            f"only {above} inputs lie above the threshold of precision {at_least:g}; "
            f"{needed} are needed for one mistake to weigh less"
        )
    rng = np.random.default_rng(seed)
    drawn = _bootstrap(ordered, ends, wanted, at_least, rng)
    worth = confusion(scores, truth, float(thresholds[place]))
    hits = worth.true_positives
    return Found(
        threshold=float(thresholds[place]),
        interval=interval(thresholds[drawn[drawn >= 0]]),  # a sample may have no such threshold
        confusion=worth,
        precision=interval(drawn_shares(hits, hits + worth.false_positives, rng)),
        recall=interval(drawn_shares(hits, hits + worth.false_negatives, rng)),
    )


def drawn_shares(part: int, whole: int, rng: np.random.Generator) -> Values:
    """What a share of inputs might have been: of so many drawn again, with replacement, from them
    and half an input more of either kind, or twenty without a mistake would pass for inputs of
    which none ever is one."""
    return rng.binomial(whole, (part + 0.5) / (whole + 1), _DRAWN) / whole


def interval(values: Values, share: float = 0.95) -> Interval:
    """Between which values this share of them lies, as much being below as above."""
    low, high = np.quantile(values, [(1 - share) / 2, (1 + share) / 2])
    return Interval(float(low), float(high))


def _check_enough(truth: Truth, at_least: float) -> None:
    needed = _needed(at_least)
    for name, count in (("positives", int(truth.sum())), ("negatives", int((~truth).sum()))):
        if count < needed:
            wish = f"{needed} are needed for a threshold at {at_least:g}"
            raise BadData(f"has {count} {name}; {wish}")


def _needed(at_least: float) -> int:
    """So many that one mistake among them is no more than what is allowed."""
    return max(_FEWEST, math.ceil(round(1 / (1 - at_least), 6)))


def _sorted(scores: Values) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Values]:
    """The order from the highest down; of each group of equal scores its last place [K], and a
    threshold that lets it in [K]: half-way to the next score below, or, where a float32, which
    is what a gateway holds it in, knows nothing between the two, the score itself."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    below = np.append(ordered[ends[:-1] + 1], ordered[-1])
    middle = ((ordered[ends] + below) / 2).astype(np.float32).astype(np.float64)
    is_between = (below < middle) & (middle <= ordered[ends])
    return order, ends, np.where(is_between, middle, ordered[ends])


def _places(
    ordered: Truth, ends: npt.NDArray[np.intp], weights: Values, wanted: Wanted, at_least: float
) -> npt.NDArray[np.intp]:
    """Which of the K thresholds is the one, for each of [B, N] weights of the rows; -1: none."""
    hits = np.cumsum(weights * ordered, axis=1)[:, ends]
    if wanted == "recall":
        is_good = hits >= at_least * hits[:, -1:] - 1e-9
        first: npt.NDArray[np.intp] = is_good.argmax(axis=1)  # which is the highest
        return first
    counts = np.cumsum(weights, axis=1)[:, ends]
    is_good = (hits >= at_least * counts - 1e-9) & (hits > 0)
    last = is_good.shape[1] - 1 - is_good[:, ::-1].argmax(axis=1)
    lowest: npt.NDArray[np.intp] = np.where(is_good.any(axis=1), last, -1)
    return lowest


def _bootstrap(
    ordered: Truth,
    ends: npt.NDArray[np.intp],
    wanted: Wanted,
    at_least: float,
    rng: np.random.Generator,
) -> npt.NDArray[np.intp]:
    """[B]: where each sample of the rows has its threshold; -1 where none is so good."""
    count = len(ordered)
    parts = []
    for start in range(0, _SAMPLES, step := max(1, _AT_ONCE // count)):
        size = min(step, _SAMPLES - start)
        weights = rng.multinomial(count, np.full(count, 1 / count), size).astype(np.float64)
        parts.append(_places(ordered, ends, weights, wanted, at_least))
    return np.concatenate(parts)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
