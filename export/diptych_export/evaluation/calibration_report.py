"""Calibrated thresholds in, one HTML page out: curves, histograms, and the worst mistakes seen."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from html import escape

import numpy as np

from diptych.contract import ModelSpec, Tower
from diptych.policies import Policy
from diptych_export.data.pairs import Reject
from diptych_export.errors import BadData
from diptych_export.evaluation.calibrating import Calibrated, Labelled
from diptych_export.evaluation.judged import Row
from diptych_export.evaluation.page import data_uri, facts, figure, page, table
from diptych_export.evaluation.plots import histogram, precision_recall
from diptych_export.thresholds import Confusion, Interval, curve

_WORST = 12  # mistakes of each kind
_REJECTS = 50


def render(
    spec: ModelSpec,
    policy: Policy,
    wanted: str,
    done: Sequence[Calibrated],
    rejects: Sequence[Reject],
) -> str:
    """The whole page. Pictures are read again, so that none had to be kept."""
    about = {
        "policy": f"{policy.name} version {policy.version}",
        "digest": policy.digest,
        "wanted": wanted,
        "model": f"{spec.name} version {spec.version}",
        "fingerprint": spec.fingerprint,
    }
    parts = [_section(policy, one) for one in done]
    if rejects:
        rows = [[escape(one.id), escape(one.reason)] for one in rejects[:_REJECTS]]
        parts.append(f"<h2>Skipped: {len(rejects)}</h2>{table(('input', 'reason'), rows)}")
    return page(f"Calibration of {policy.name} version {policy.version}", facts(about), parts)


def _section(policy: Policy, one: Calibrated) -> str:
    [concept] = [known for known in policy.concepts if known.name == one.concept]
    found, data = one.found, one.data
    said = {
        "prompts": " · ".join(concept.prompts),
        "contrast": " · ".join(concept.contrast) or "none",
        "measure": concept.measure,
        "threshold": found.threshold,
        "95 % of bootstrap samples": _between(found.interval),
        "threshold before": "none" if one.before is None else one.before,
        "precision": f"{found.confusion.precision:.4f} ({_between(found.precision)})",
        "recall": f"{found.confusion.recall:.4f} ({_between(found.recall)})",
    }
    worth = found.confusion
    plots = precision_recall(
        curve(data.scores, data.truth), precision=worth.precision, recall=worth.recall
    ) + histogram(data.scores, data.truth, found.threshold)
    parts = [
        f"<h2>{escape(one.concept)}, {one.tower}s</h2>",
        facts(said),
        plots,
        "<h3>At the threshold, on the data it was found on</h3>",
        _confusion(worth),
    ]
    if (held_out := one.held_out_confusion) and one.held_out:
        parts += [
            "<h3>At the threshold, on data held out</h3>",
            f"<p>precision {held_out.precision:.4f}, recall {held_out.recall:.4f}</p>",
            _confusion(held_out),
        ]
        data = one.held_out
    parts += _mistakes(data, found.threshold)
    return "\n".join(parts)


def _confusion(found: Confusion) -> str:
    return table(
        ("", "reached", "not reached"),
        [
            ["of the concept", found.true_positives, found.false_negatives],
            ["not of it", found.false_positives, found.true_negatives],
        ],
    )


def _mistakes(data: Labelled, threshold: float) -> list[str]:
    """The worst of both kinds, those furthest from the threshold first."""
    parts = []
    reached = data.scores >= threshold
    for name, wrong, order in (
        ("Reached, and not of the concept", reached & ~data.truth, -data.scores),
        ("Of the concept, and not reached", ~reached & data.truth, data.scores),
    ):
        places = np.flatnonzero(wrong)
        worst = places[np.argsort(order[places], kind="stable")][:_WORST]
        cells = (
            "".join(cell(data.rows[place], f"{data.scores[place]:.4f}") for place in worst)
            or "none"
        )
        parts.append(f"<h3>{name}: {len(places)}</h3><div class=grid>{cells}</div>")
    return parts


def cell(row: Row, note: str) -> str:
    """One input, and a line of HTML under it."""
    if row.tower is Tower.TEXT:
        return figure(None, row.id, f"{escape(row.value)}<br>{note}")
    picture = None
    with suppress(BadData):  # gone since: the report does without
        content = row.read()
        picture = data_uri(content) if isinstance(content, bytes) else None
    return figure(picture, row.id, note)


def _between(interval: Interval) -> str:
    return f"{interval.low:.4f} to {interval.high:.4f}"
