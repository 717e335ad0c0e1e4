"""`diptych-export evaluate`."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Column, Table

from diptych.contract import ModelSpec
from diptych.labels import SLOT
from diptych.repository import load, names
from diptych_export.data.pairs import Keys, Shard
from diptych_export.data.shards import shards
from diptych_export.errors import BadRun
from diptych_export.evaluation import report
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
        return found


AsJson = Annotated[bool, Parameter(name="--json", negative="", help="One JSON object.")]


def evaluate(
    *,
    repository: Path = Path("model_repository"),
    model: str | None = None,
    labelled: str | None = None,
    classes: Path | None = None,
    template: Annotated[tuple[str, ...], Parameter(negative="")] = TEMPLATES,
    pairs: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    image_key: str | None = None,
    text_key: str | None = None,
    html: Path | None = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model of a repository through the preprocessing and the engine that serve it.

    Zero-shot top-1 and top-5 on labelled pictures, recall at 1, 5 and 10 both ways on pairs.

    Example: diptych-export evaluate --labelled imagenet/val --classes names.txt --template "a
    photo of a {}." --template "a drawing of a {}." --html report.html

    Parameters
    ----------
    repository
        The model repository.
    model
        Which model, in its newest version; by default the only one there.
    labelled
        A folder with a folder of pictures for each class, or webdataset shards with .cls.
    classes
        A file with a class name a line, in the order of the folders or of the shards' numbers.
        By default the folders' names.
    template
        What {} is put into; several are ensembled. Repeatable.
    pairs
        Images with their texts, as for training: .tar, .csv, .tsv or .parquet. Repeatable.
    image_key
        Column or extension of the image in pairs, where it is not a usual name.
    text_key
        Column, extension or JSON field of the text, likewise.
    html
        Where to write a report with pictures.
    """
    _check(labelled, pairs, template)
    data = labels(labelled, classes) if labelled else None
    files = shards(pairs, Keys(image_key, text_key)) if pairs else []
    found = asyncio.run(_evaluate(repository, model, data, template, files))
    if html:
        page = report.render(found.spec, found.engine, found.zero_shot, found.retrieval)
        html.write_text(page, encoding="utf-8")
    _print(found.as_dict(), as_json)


def _check(labelled: str | None, pairs: tuple[str, ...], templates: tuple[str, ...]) -> None:
    if labelled is None and not pairs:
        raise BadRun("nothing to evaluate on: --labelled, or --pairs, or both")
    for one in templates:
        if one.count(SLOT) != 1:
            raise BadRun(f"--template {one!r}: must hold {SLOT} once")


async def _evaluate(
    root: Path,
    name: str | None,
    data: Labels | None,
    templates: tuple[str, ...],
    files: list[Shard],
) -> Evaluation:
    async with opened(load(root, name or _only(root))) as model:
        return Evaluation(
            spec=model.spec,
            engine=model.engine.description,
            zero_shot=(await zero_shot(model, data, templates), data) if data else None,
            retrieval=(await retrieve(model, files), files) if files else None,
        )


def _only(root: Path) -> str:
    known = names(root)
    if len(known) != 1:
        there = ", ".join(known) or "none"
        raise BadRun(f"{root}: which model? --model; there are: {there}")
    return known[0]


def _print(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(found))  # noqa: T201 (rich would wrap it)
        return
    table = Table("figure", Column("value", overflow="fold"))
    for name, value in found.items():
        for inner, number in value.items() if isinstance(value, dict) else [(name, value)]:
            shown = f"{number:.4f}" if isinstance(number, float) else str(number)
            table.add_row(inner, shown)
    out.print(table)
