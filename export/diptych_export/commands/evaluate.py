"""`diptych-export evaluate`."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich import box
from rich.console import Console
from rich.table import Column, Table

from diptych.concepts import embed_policy
from diptych.contract import ModelSpec
from diptych.gateway.opening import open_encoder
from diptych.labels import SLOT
from diptych.policy_files import PolicyFile, read_policy
from diptych.repository import ModelFiles, load, names
from diptych.settings import Settings
from diptych_export.data.pairs import Keys, Shard
from diptych_export.data.shards import shards
from diptych_export.errors import BadRun
from diptych_export.evaluation import bias_report, report
from diptych_export.evaluation.bias import Bias, Share, probe, worded
from diptych_export.evaluation.calibrating import score_rows
from diptych_export.evaluation.groups import read_groups
from diptych_export.evaluation.judged import Row
from diptych_export.evaluation.labelled import Labels, labels
from diptych_export.evaluation.retrieval import Retrieval, retrieve
from diptych_export.evaluation.zero_shot import ZeroShot, zero_shot
from diptych_export.inference import opened

out = Console(highlight=False)

TEMPLATES = ("a photo of a {}.",)  # CLIP's own when it uses one alone: §3.1.4


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that was measured of one version of one model."""

    spec: ModelSpec
    engine: str
    zero_shot: tuple[ZeroShot, Labels] | None
    retrieval: tuple[Retrieval, list[Shard]] | None
    bias: Bias | None

    def as_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "model": self.spec.name,
            "version": self.spec.version,
            "fingerprint": self.spec.fingerprint,
            "engine": self.engine,
        }
        if self.zero_shot:
            found["zero_shot"] = self.zero_shot[0].as_dict()
        if self.retrieval:
            found["retrieval"] = self.retrieval[0].as_dict()
        if self.bias:
            found["bias"] = self.bias.as_dict()
        return found


@dataclass(frozen=True, slots=True)
class _Data:
    """What to evaluate on."""

    labelled: Labels | None
    templates: tuple[str, ...]
    pairs: list[Shard]
    policy: PolicyFile | None
    groups: list[Row]


RepositoryPath = Annotated[Path, Parameter(help="The model repository.")]
ModelName = Annotated[
    str | None, Parameter(help="Which model, in its newest version; by default the only one there.")
]
Labelled = Annotated[
    str | None,
    Parameter(
        help="A folder with a folder of pictures for each class, or webdataset shards with .cls."
    ),
]
Classes = Annotated[
    Path | None,
    Parameter(
        help="A file with a class name a line, in the order of the folders or of the shards' "
        "numbers. By default the folders' names."
    ),
]
Templates = Annotated[
    tuple[str, ...],
    Parameter(negative="", help="What {} is put into; several are ensembled. Repeatable."),
]
Pairs = Annotated[
    tuple[str, ...],
    Parameter(
        negative="",
        help="Images with their texts, as for training: .tar, .csv, .tsv or .parquet. Repeatable.",
    ),
]
ImageKey = Annotated[
    str | None,
    Parameter(help="Column or extension of the image in pairs, where it is not a usual name."),
]
TextKey = Annotated[
    str | None, Parameter(help="Column, extension or JSON field of the text, likewise.")
]
PolicyPath = Annotated[
    Path | None, Parameter(help="A policy's file: how do its thresholds treat --groups?")
]
Groups = Annotated[
    Path | None,
    Parameter(
        help="A folder with a folder of images for each group; or a CSV file: image or text, "
        "group, and where known a column named as each concept, 1 or 0."
    ),
]
GroupColumn = Annotated[
    str | None, Parameter(help="The column of --groups that names the group, if it is not `group`.")
]
Html = Annotated[Path | None, Parameter(help="Where to write a report with pictures.")]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="One JSON object.")]


def evaluate(
    *,
    repository: RepositoryPath = Path("model_repository"),
    model: ModelName = None,
    labelled: Labelled = None,
    classes: Classes = None,
    template: Templates = TEMPLATES,
    pairs: Pairs = (),
    image_key: ImageKey = None,
    text_key: TextKey = None,
    policy: PolicyPath = None,
    groups: Groups = None,
    group_column: GroupColumn = None,
    html: Html = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model of a repository through the preprocessing and the engine that serve it.

    Zero-shot top-1 and top-5 on labelled pictures, recall at 1, 5 and 10 both ways on pairs. With
    a policy, how often each of its concepts is reached, missed and reached wrongly in each group
    of inputs, and how far the groups are apart.

    Example: diptych-export evaluate --labelled imagenet/val --classes names.txt --template "a
    photo of a {}." --template "a drawing of a {}." --html report.html

    Example: diptych-export evaluate --policy shapes.yaml --groups people.csv --group-column age
    """
    _check(labelled, pairs, template, policy, groups)
    file = read_policy(policy) if policy else None
    data = _Data(
        labelled=labels(labelled, classes) if labelled else None,
        templates=template,
        pairs=shards(pairs, Keys(image_key, text_key)) if pairs else [],
        policy=file,
        groups=_groups(file, groups, group_column),
    )
    found = asyncio.run(_evaluate(load(repository, model or _only(repository)), data))
    if html:
        parts = [bias_report.section(found.bias)] if found.bias else []
        page = report.render(found.spec, found.engine, found.zero_shot, found.retrieval, parts)
        html.write_text(page, encoding="utf-8")
    _print(found, as_json)


def _check(
    labelled: str | None,
    pairs: tuple[str, ...],
    templates: tuple[str, ...],
    policy: Path | None,
    groups: Path | None,
) -> None:
    if (policy is None) is not (groups is None):
        raise BadRun("--policy and --groups: each needs the other")
    if labelled is None and not pairs and policy is None:
        raise BadRun("nothing to evaluate on: --labelled, --pairs, or --policy with --groups")
    for one in templates:
        if one.count(SLOT) != 1:
            raise BadRun(f"--template {one!r}: must hold {SLOT} once")


def _groups(file: PolicyFile | None, source: Path | None, column: str | None) -> list[Row]:
    if file is None or source is None:
        return []
    return read_groups(source, [concept.name for concept in file.policy.concepts], column)


async def _evaluate(files: ModelFiles, data: _Data) -> Evaluation:
    bias = await _bias(files, data.policy, data.groups) if data.policy else None
    async with opened(files) as model:
        return Evaluation(
            spec=model.spec,
            engine=model.engine.description,
            zero_shot=(await zero_shot(model, data.labelled, data.templates), data.labelled)
            if data.labelled
            else None,
            retrieval=(await retrieve(model, data.pairs), data.pairs) if data.pairs else None,
            bias=bias,
        )


async def _bias(files: ModelFiles, file: PolicyFile, rows: list[Row]) -> Bias:
    """Through the gateway's own path: its preprocessing, engine and measures."""
    if not file.policy.fits(files.spec.fingerprint):
        raise file.misfit(files.spec.fingerprint)
    settings = Settings(repository=files.tokenizer.parents[2], model=(files.spec.name,))
    async with open_encoder(files, settings) as encoder:
        policy = await embed_policy(encoder, file.policy)
        return probe(policy, await score_rows(encoder, policy, rows))


def _only(root: Path) -> str:
    known = names(root)
    if len(known) != 1:
        there = ", ".join(known) or "none"
        raise BadRun(f"{root}: which model? --model; there are: {there}")
    return known[0]


def _print(found: Evaluation, as_json: bool) -> None:
    said = found.as_dict()
    if as_json:
        print(json.dumps(said))  # noqa: T201 (rich would wrap it)
        return
    said.pop("bias", None)
    table = Table("figure", Column("value", overflow="fold"))
    for name, value in said.items():
        for inner, number in value.items() if isinstance(value, dict) else [(name, value)]:
            shown = f"{number:.4f}" if isinstance(number, float) else str(number)
            table.add_row(inner, shown)
    out.print(table)
    if found.bias:
        _print_bias(found.bias)


def _print_bias(found: Bias) -> None:
    for one in found.probes:
        out.print(f"{one.concept}, {one.tower}s, at {one.threshold:.3f}")
        table = Table(box=box.SIMPLE, collapse_padding=True, pad_edge=False)
        for name in ("group", *map(worded, one.rates)):
            table.add_column(name)
        for group in one.groups:
            table.add_row(group, *(_shown(shares.get(group)) for shares in one.rates.values()))
        out.print(table)
        for line in (*map(str, one.gaps), *map(str, one.refused)):
            out.print(f"  {line}", soft_wrap=True)
    out.print(
        f"{found.policy} version {found.version}; skipped: {len(found.rejects)}, "
        f"without a group: {found.ungrouped}"
    )


def _shown(share: Share | None) -> str:
    if share is None:
        return "too few"
    low, high = share.interval.low, share.interval.high
    return f"{share.value:.3f} ({low:.2f} to {high:.2f})"
