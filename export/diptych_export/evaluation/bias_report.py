"""How a policy treats groups in, one section of a page out."""

from __future__ import annotations

from html import escape

from diptych_export.evaluation.bias import Bias, Probe, Share, worded
from diptych_export.evaluation.calibration_report import cell
from diptych_export.evaluation.page import facts, table

_MISSED = 12  # inputs shown of the group that is missed most


def section(found: Bias) -> str:
    """As HTML. Pictures are read again, so that none had to be kept."""
    about = {
        "policy": f"{found.policy} version {found.version}",
        "skipped": len(found.rejects),
        "without a group": found.ungrouped,
    }
    return "\n".join(["<h2>Groups</h2>", facts(about), *map(_probe, found.probes)])


def _probe(one: Probe) -> str:
    parts = [
        f"<h3>{escape(one.concept)}, {one.tower}s, at {one.threshold:.4f}</h3>",
        table(("group", *map(worded, one.rates)), _rows(one)),
    ]
    lines = [f"<li>{escape(str(said))}</li>" for said in (*one.gaps, *one.refused)]
    parts.append(f"<ul>{''.join(lines)}</ul>")
    if one.missed:
        [group] = {row.group for row, _ in one.missed}
        cells = "".join(cell(row, f"{score:.4f}") for row, score in one.missed[:_MISSED])
        head = f"Missed in group {group!r}: {len(one.missed)}"
        parts.append(f"<h4>{escape(head)}</h4><div class=grid>{cells}</div>")
    return "\n".join(parts)


def _rows(one: Probe) -> list[list[str]]:
    return [
        [escape(group), *(_shown(shares.get(group)) for shares in one.rates.values())]
        for group in one.groups
    ]


def _shown(share: Share | None) -> str:
    if share is None:
        return "too few"
    low, high = share.interval.low, share.interval.high
    bar = f"<div class=bar style='width:{100 * share.value:.0f}%'></div>"
    return f"{share.value:.4f} of {share.whole} ({low:.4f} to {high:.4f}){bar}"
