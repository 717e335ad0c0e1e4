"""A checkpoint in transformers' layout in, a `Source` out. Every setting is read, none assumed."""

from __future__ import annotations

from pathlib import Path

from diptych_export.errors import BadCheckpoint
from diptych_export.sources import families
from diptych_export.sources.base import Source
from diptych_export.sources.card import licence_of
from diptych_export.sources.image_rules import image_spec
from diptych_export.sources.library import LibraryReference
from diptych_export.sources.pretrained import Pretrained, read
from diptych_export.sources.text_rules import text_spec, tokenizer_json
from diptych_export.sources.trial import numbers


def open_huggingface(where: str, licence: str | None = None) -> Source:
    """Read a directory or hub id of any family in `families.FAMILIES`.

    Raises:
        BadCheckpoint: a file, setting or weight is missing or broken, or the serving side has no
            rule for it.
    """
    own = read(where)
    name = Path(where).name if Path(where).is_dir() else where
    origin = f"{own.model.config.model_type} {name}"
    return _source(own, origin=origin, licence=licence or licence_of(own.card))


def _source(own: Pretrained, *, origin: str, licence: str) -> Source:
    image = image_spec(own.where, own.written, own.processor)
    takes = families.picture_size(own.model)
    if takes not in (None, image.size):
        problem = f"pictures become {image.size} pixels a side, the image tower takes {takes}"
        raise BadCheckpoint(f"{own.where}: {problem}")
    text = text_spec(own.where, own.tokenizer, families.text_needs(own.model, own.tokenizer))
    towers = families.towers(own.model, image, text)
    scale, bias = families.scale_and_bias(own.model)
    return Source(
        image=image,
        text=text,
        image_tower=towers[0],
        text_tower=towers[1],
        tokenizer_json=tokenizer_json(own.where, own.tokenizer, text),
        reference=LibraryReference(own, text),
        numbers=numbers(own.where, *towers, image, text)
        | {"logit_scale": scale, "logit_bias": bias},
        score=own.family.score,
        origin=origin,
        licence=licence,
    )
