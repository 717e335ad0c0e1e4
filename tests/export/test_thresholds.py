"""Thresholds found on scores of which the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from diptych_export.errors import BadData
from diptych_export.thresholds import Truth, Values, confusion, curve, find


def two_bells(count: int, apart: float, seed: int = 0) -> tuple[Values, Truth]:
    """Positives around `apart`, negatives around 0, both of deviation 1."""
    rng = np.random.default_rng(seed)
    truth = np.arange(count) % 3 == 0
    return rng.normal(size=count) + apart * truth, truth


def test_a_curve_says_what_every_threshold_is_worth() -> None:
    scores, truth = np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False])
    found = curve(scores, truth)
    np.testing.assert_allclose(found.thresholds, [0.7, 0.3, 0.1])
    np.testing.assert_allclose(found.precision, [1, 2 / 3, 0.5])
    np.testing.assert_allclose(found.recall, [0.5, 1, 1])
    for threshold, precision, recall in zip(
        found.thresholds, found.precision, found.recall, strict=True
    ):
        measured = confusion(scores, truth, threshold)
        assert (measured.precision, measured.recall) == (precision, recall)


@pytest.mark.parametrize("wanted", ["precision", "recall"])
def test_what_is_wanted_is_reached_and_the_other_is_the_best_there_is(wanted: str) -> None:
    scores, truth = two_bells(900, 3.0)
    found = find(scores, truth, wanted, 0.9)  # type: ignore[arg-type]
    every = curve(scores, truth)
    other = "recall" if wanted == "precision" else "precision"
    good = getattr(every, wanted) >= 0.9
    assert getattr(found.confusion, wanted) >= 0.9
    if wanted == "precision":
        assert getattr(found.confusion, other) == getattr(every, other)[good].max()
    else:
        assert found.threshold == every.thresholds[good].max()


def test_more_data_make_the_interval_narrow_and_it_holds_the_truth() -> None:
    few, many = (find(*two_bells(count, 3.0), "recall", 0.9) for count in (120, 6000))
    true = 3.0 - 1.2816  # nine tenths of a bell around 3 lie above
    assert few.interval.low <= true <= few.interval.high
    assert many.interval.low <= true <= many.interval.high
    widths = [found.interval.high - found.interval.low for found in (few, many)]
    assert widths[1] < widths[0] / 4
    for found in (few, many):
        assert found.interval.low <= found.threshold <= found.interval.high
        assert found.recall.low <= found.confusion.recall <= found.recall.high
        assert found.precision.low <= found.confusion.precision <= found.precision.high


def test_ties_are_let_in_or_kept_out_together() -> None:
    scores = np.repeat([0.8, 0.5, 0.2], 40)
    truth = np.repeat([True, False, False], 40)
    truth[40:44] = True
    found = find(scores, truth, "precision", 0.9)
    np.testing.assert_allclose(found.threshold, 0.65)
    assert found.confusion.true_positives == 40


def test_a_threshold_still_parts_neighbouring_scores_where_it_is_held_in_single_precision() -> None:
    """As in a gateway: half-way between two neighbours there would be one of the two."""
    low = np.float32(0.5)
    for _ in range(4):
        high = np.nextafter(low, np.float32(1))
        scores = np.repeat(np.array([high, low], np.float64), 30)
        found = find(scores, np.repeat([True, False], 30), "precision", 0.9)
        assert low < np.float32(found.threshold) <= high
        low = high


def test_the_same_data_give_the_same_threshold_and_interval() -> None:
    data = two_bells(300, 2.5)
    assert find(*data, "precision", 0.8) == find(*data, "precision", 0.8)


@pytest.mark.parametrize(
    ("positives", "negatives", "at_least", "problem"),
    [
        (19, 500, 0.9, "has 19 positives; 20 are needed for a threshold at 0.9"),
        (500, 7, 0.9, "has 7 negatives; 20 are needed"),
        (99, 500, 0.99, "has 99 positives; 100 are needed"),
    ],
)
def test_what_the_data_cannot_support_is_refused(
    positives: int, negatives: int, at_least: float, problem: str
) -> None:
    scores = np.linspace(1, 0, positives + negatives)
    truth = np.arange(positives + negatives) < positives
    with pytest.raises(BadData, match=problem):
        find(scores, truth, "precision", at_least)


def test_a_precision_that_no_threshold_has_is_refused() -> None:
    rng = np.random.default_rng(0)
    scores, truth = np.round(rng.random(400), 1), np.arange(400) % 4 == 0
    with pytest.raises(BadData, match=r"no threshold has a precision of 0.95; the best is 0\."):
        find(scores, truth, "precision", 0.95)


def test_a_handful_of_lucky_ones_is_no_precision() -> None:
    rng = np.random.default_rng(0)
    scores, truth = rng.random(400), np.arange(400) % 4 == 0
    scores[:12:4] += 1  # three positives ahead of all else
    with pytest.raises(BadData, match="only 3 inputs lie above"):
        find(scores, truth, "precision", 0.95)
