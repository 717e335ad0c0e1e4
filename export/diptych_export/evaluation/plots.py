"""Numbers in, SVG out, for pages that need nothing else."""

from __future__ import annotations

from html import escape

import numpy as np

from diptych_export.thresholds import Curve, Truth, Values

_WIDTH, _HEIGHT, _MARGIN = 340, 240, 36
_BINS = 40
_POINTS = 400  # of a curve; more are not seen
_OF, _NOT_OF, _MARK = "#228833", "#bbbbbb", "#cc3311"


def precision_recall(curve: Curve, *, precision: float, recall: float) -> str:
    """Precision over recall, both 0 to 1, with a mark at the threshold chosen."""
    steps = np.unique(np.linspace(0, len(curve.recall) - 1, _POINTS).astype(int))
    points = " ".join(
        f"{_x(curve.recall[step]):.1f},{_y(curve.precision[step]):.1f}" for step in steps
    )
    line = f'<polyline points="{points}" fill="none" stroke="#4477aa" stroke-width="2"/>'
    mark = f'<circle cx="{_x(recall):.1f}" cy="{_y(precision):.1f}" r="5" fill="{_MARK}"/>'
    return _figure(
        "precision over recall", line + mark, ("recall", "0", "1"), ("precision", "0", "1")
    )


def histogram(scores: Values, truth: Truth, threshold: float) -> str:
    """How the scores of those that are of the concept lie, and of those that are not."""
    low, high = float(min(scores.min(), threshold)), float(max(scores.max(), threshold))
    high = high if high > low else low + 1.0
    edges = np.linspace(low, high, _BINS + 1)
    bars = []
    counts = [np.histogram(scores[kind], edges)[0] for kind in (~truth, truth)]
    most = max(1, max(int(count.max()) for count in counts))
    for count, colour in zip(counts, (_NOT_OF, _OF), strict=True):
        for index, value in enumerate(count.tolist()):
            if value:
                left, right = _x(index / _BINS), _x((index + 1) / _BINS)
                top = _y(value / most)
                bars.append(
                    f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
                    f'height="{_y(0) - top:.1f}" fill="{colour}" fill-opacity="0.7"/>'
                )
    at = _x((threshold - low) / (high - low))
    bars.append(
        f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_y(1)}" y2="{_y(0)}" '
        f'stroke="{_MARK}" stroke-width="2"/>'
    )
    ends = "score: green of the concept, grey not", f"{low:.3g}", f"{high:.3g}"
    return _figure("histogram of scores", "".join(bars), ends, ("inputs", "0", str(most)))


def _figure(title: str, inside: str, x: tuple[str, str, str], y: tuple[str, str, str]) -> str:
    """`x` and `y` are the names of the axes and their ends."""
    frame = (
        f'<rect x="{_x(0)}" y="{_y(1)}" width="{_x(1) - _x(0)}" height="{_y(0) - _y(1)}" '
        'fill="none" stroke="#999"/>'
    )
    words = [
        (_x(0.5), _HEIGHT - 6, "middle", x[0]),
        (_x(0), _HEIGHT - 20, "middle", x[1]),
        (_x(1), _HEIGHT - 20, "middle", x[2]),
        (_x(0) - 5, _y(0), "end", y[1]),
        (_x(0) - 5, _y(1) + 10, "end", y[2]),
    ]
    texts = "".join(
        f'<text x="{left}" y="{top}" text-anchor="{anchor}" font-size="11">{escape(word)}</text>'
        for left, top, anchor, word in words
    )
    texts += (
        f'<text transform="translate({_x(0) - 10} {_y(0.5)}) rotate(-90)" '
        f'text-anchor="middle" font-size="11">{escape(y[0])}</text>'
    )
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{frame}{inside}{texts}</svg>"
    )


def _x(share: float) -> float:
    return _MARGIN + share * (_WIDTH - 2 * _MARGIN)


def _y(share: float) -> float:
    return _HEIGHT - _MARGIN - share * (_HEIGHT - _MARGIN - 12)
