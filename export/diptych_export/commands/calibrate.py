"""`diptych-export calibrate`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, validators
from rich import box
from rich.console import Console
from rich.table import Table

from diptych import repository as repositories
from diptych.concepts import embed_policy
from diptych.contract import ModelSpec
from diptych.gateway.opening import open_encoder
from diptych.gateway.rollout import served_names
from diptych.policies import Policy
from diptych.policy_files import PolicyFile, read_policy
from diptych.settings import Settings
from diptych_export.errors import BadRun
from diptych_export.evaluation import calibration_report, judged
from diptych_export.evaluation.calibrating import Calibrated, Scored, score_rows
from diptych_export.evaluation.calibrating import calibrate as calibrated
from diptych_export.policy_writing import check_covered, next_version, write
from diptych_export.thresholds import Wanted

console = Console(highlight=False)

USUAL = 0.95

# Below 1: a share without any mistake is what no number of inputs can support.
_SHARE = validators.Number(gt=0, lt=1)

PolicyPath = Annotated[Path, Parameter(help="The policy's file.")]
DataPath = Annotated[
    Path,
    Parameter(
        help="A CSV file: image (a file, from the table's folder) or text, and a column named as "
        "each concept, 1 or 0, empty where not known."
    ),
]
OutPath = Annotated[
    Path, Parameter(help="Where the next version goes; may be the policy's own file.")
]
Precision = Annotated[
    float | None,
    Parameter(
        validator=_SHARE,
        help="Of what reaches a threshold, the share that should: the lowest such threshold is "
        "taken. 0.95 where neither is given.",
    ),
]
Recall = Annotated[
    float | None,
    Parameter(
        validator=_SHARE,
        help="Of what should reach a threshold, the share that does: the highest such is taken.",
    ),
]
HeldOut = Annotated[
    Path | None,
    Parameter(help="A second table, on which the thresholds found are only measured."),
]
Version = Annotated[
    str | None, Parameter(help="Of the policy written; by default the next number.")
]
Html = Annotated[
    Path | None,
    Parameter(help="Where to write a report with curves, histograms and the worst mistakes."),
]
Repository = Annotated[Path, Parameter(help="The model repository.")]
ModelName = Annotated[
    str | None, Parameter(help="Which model, in its newest version; by default the only one.")
]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="One JSON object.")]


@dataclass(frozen=True, slots=True)
class _Wish:
    wanted: Wanted
    at_least: float


def calibrate(
    *,
    policy: PolicyPath,
    data: DataPath,
    out: OutPath,
    precision: Precision = None,
    recall: Recall = None,
    held_out: HeldOut = None,
    version: Version = None,
    html: Html = None,
    repository: Repository = Path("model_repository"),
    model: ModelName = None,
    as_json: AsJson = False,
) -> None:
    """Find the thresholds of a policy on labelled images and texts, and write its next version.

    Measured through the preprocessing and the engine that serve the model. A threshold that the
    data cannot support, for want of positives or of precision, is refused, and nothing written.

    Example: diptych-export calibrate --policy shapes.yaml --data labelled.csv --precision 0.95
    --held-out others.csv --out policies/shapes.yaml --html report.html
    """
    wish = _wish(precision, recall)
    file = read_policy(policy)
    settings = Settings(repository=repository, model=(model,) if model else ())
    spec, done, scored = asyncio.run(_calibrated(file, data, held_out, settings, wish))
    fresh = write(
        file,
        done,
        out,
        version=version or next_version(file.policy.version),
        fingerprint=spec.fingerprint,
        wanted=wish.wanted,
        at_least=wish.at_least,
    )
    if html:
        wanted = f"{wish.wanted} of at least {wish.at_least:g}"
        page = calibration_report.render(spec, fresh, wanted, done, scored.rejects)
        html.write_text(page, encoding="utf-8")
    _print(fresh, spec, done, len(scored.rejects), as_json)


def _wish(precision: float | None, recall: float | None) -> _Wish:
    if precision is not None and recall is not None:
        raise BadRun("--precision and --recall: a threshold follows from one of them")
    if recall is not None:
        return _Wish("recall", recall)
    return _Wish("precision", USUAL if precision is None else precision)


async def _calibrated(
    file: PolicyFile, data: Path, held_out: Path | None, settings: Settings, wish: _Wish
) -> tuple[ModelSpec, list[Calibrated], Scored]:
    names = [concept.name for concept in file.policy.concepts]
    rows = judged.read_rows(data, names)
    others = judged.read_rows(held_out, names) if held_out else []
    name = served_names(settings.repository, settings.model)[0]
    async with open_encoder(repositories.load(settings.repository, name), settings) as encoder:
        policy = await embed_policy(encoder, file.policy)
        scored = await score_rows(encoder, policy, rows)
        other = await score_rows(encoder, policy, others) if others else None
        spec = encoder.spec
    done = calibrated(policy, scored, other, wish.wanted, wish.at_least)
    check_covered(file.policy, done, spec.fingerprint)
    return spec, done, scored


def _print(
    policy: Policy, spec: ModelSpec, done: Sequence[Calibrated], skipped: int, as_json: bool
) -> None:
    if as_json:
        record: dict[str, Any] = {
            "policy": policy.name,
            "version": policy.version,
            "digest": policy.digest,
            "model": spec.name,
            "fingerprint": spec.fingerprint,
            "thresholds": [one.as_dict() for one in done],
            "skipped": skipped,
        }
        print(json.dumps(record))  # noqa: T201 (rich would wrap it)
        return
    table = Table(box=box.SIMPLE, collapse_padding=True, pad_edge=False)
    for name in ("concept", "threshold", "precision", "recall", "held out"):
        table.add_column(name)
    for one in done:
        found, held_out = one.found, one.held_out_confusion
        table.add_row(
            f"{one.concept}, {one.tower}s",
            f"{found.threshold:.3f} ({found.interval.low:.2f} to {found.interval.high:.2f})",
            f"{found.confusion.precision:.3f}",
            f"{found.confusion.recall:.3f}",
            f"{held_out.precision:.3f}, {held_out.recall:.3f}" if held_out else "",
        )
    console.print(table)
    console.print(
        f"{policy.name} version {policy.version} for {spec.fingerprint}; skipped: {skipped}",
        soft_wrap=True,
    )
