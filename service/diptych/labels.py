"""Label sets: named texts, read from files, checked, embedded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, TypeAlias

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from diptych.contract import Matrix, Priority, Vector
from diptych.encoder import Embedded, Encoder, Input, Outcome, Reading
from diptych.errors import BadInput, BadRepository
from diptych.scoring import ensemble

SLOT = "{}"  # where a template takes its label

_BULK = Reading(priority=Priority.BULK)

Text: TypeAlias = Annotated[str, Field(min_length=1)]


class LabelSet(BaseModel):
    """What a label-set file says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    version: Text
    labels: Annotated[tuple[Text, ...], Field(min_length=1)]
    templates: tuple[Text, ...] = ()  # empty: each label as it stands

    @field_validator("templates")
    @classmethod
    def _one_slot_each(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for template in templates:
            if template.count(SLOT) != 1:
                raise ValueError(f"{template!r} must hold {SLOT} once")
        return templates

    @field_validator("labels")
    @classmethod
    def _each_once(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) != len(labels):
            raise ValueError("a label stands twice")
        return labels


@dataclass(frozen=True, slots=True)
class EmbeddedLabels:
    """A label set and the vectors of its labels in one space."""

    file: LabelSet
    vectors: Matrix  # [labels, D], unit rows, contiguous


def read_label_sets(folder: Path) -> list[LabelSet]:
    """Every `*.yaml` in `folder`, by name.

    Raises:
        BadRepository: naming the file and field that is wrong, or the name that stands twice.
    """
    if not folder.is_dir():
        raise BadRepository(f"{folder}: no such folder of label sets")
    sets: dict[str, LabelSet] = {}
    for path in sorted(folder.glob("*.yaml")):
        label_set = _read(path)
        if label_set.name in sets:
            raise BadRepository(f"{path}: name: {label_set.name!r} stands in another file too")
        sets[label_set.name] = label_set
    return list(sets.values())


async def embed_label_set(encoder: Encoder, label_set: LabelSet) -> EmbeddedLabels:
    """Embed every label once, for one space.

    Raises:
        BadRepository: a label does not fit the model's context.
        EngineError: the engine is away, or failed.
    """
    results = await embed_in_templates(
        encoder, label_set.labels, label_set.templates, _BULK, "labels"
    )
    try:
        vectors = np.stack([vector_of(result) for result in results])
    except BadInput as exc:
        raise BadRepository(f"label set {label_set.name}: {exc}") from exc
    return EmbeddedLabels(label_set, vectors)


async def embed_in_templates(
    encoder: Encoder,
    items: Sequence[Input | BadInput],
    templates: Sequence[str],
    reading: Reading,
    place: str,
) -> list[Outcome]:
    """Embed each item; a text under every template, if there are any, ensembled into one vector.

    Errors and their fields are those of `Encoder.embed_all` for item i of the list `place`.
    """
    variants = [_under(templates, item) for item in items]
    places = [f"{place}[{index}]" for index, texts in enumerate(variants) for _ in texts]
    flat = await encoder.embed_all([item for texts in variants for item in texts], reading, places)
    parts = iter(flat)
    return [_together(list(islice(parts, len(texts)))) for texts in variants]


def vector_of(outcome: Outcome) -> Vector:
    """The vector, or the error raised."""
    if isinstance(outcome, Embedded):
        return outcome.vector
    raise outcome


def _under(templates: Sequence[str], item: Input | BadInput) -> list[Input | BadInput]:
    if isinstance(item, str) and templates:
        return [template.replace(SLOT, item) for template in templates]
    return [item]


def _together(parts: list[Outcome]) -> Outcome:
    """One outcome of one item's variants: the first error, or the ensemble."""
    embedded = [part for part in parts if isinstance(part, Embedded)]
    if len(embedded) < len(parts):
        return next(part for part in parts if not isinstance(part, Embedded))
    if len(embedded) == 1:
        return embedded[0]
    return Embedded(
        vector=ensemble(np.stack([part.vector for part in embedded])),
        tokens=max(part.tokens for part in embedded),
        tokens_dropped=max(part.tokens_dropped for part in embedded),
        decode_s=max(part.decode_s for part in embedded),
        queue_s=max(part.queue_s for part in embedded),
        engine_s=max(part.engine_s for part in embedded),
    )


def _read(path: Path) -> LabelSet:
    try:
        return LabelSet.model_validate(yaml.safe_load(path.read_text()))
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"])) or "whole file"
        raise BadRepository(f"{path}: {where}: {first['msg']}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise BadRepository(f"{path}: not YAML: {exc}") from exc
