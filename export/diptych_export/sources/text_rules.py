"""A transformers tokenizer in; `TextSpec` and a tokenizer.json of the same ids out."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import SiglipTokenizer

from diptych.contract import TextSpec
from diptych.errors import BadRepository
from diptych.preprocess.text import TextTokenizer
from diptych_export import samples
from diptych_export.errors import BadCheckpoint
from diptych_export.sources import sentencepieces


@dataclass(frozen=True, slots=True)
class TextNeeds:
    """What a text tower asks of the tokenizer before it."""

    positions: int  # tokens per text that it has places for
    vocabulary: int  # ids are below it
    padding: Literal["longest", "max_length"]
    attention_mask: bool
    end_id: int | None  # the id it looks for to read a text off; None: it looks for none
    highest_ends: bool = False  # it takes the highest id for the end


def text_spec(where: str, tokenizer: Any, needs: TextNeeds) -> TextSpec:
    """The rules of `tokenizer`, within what its tower has room for.

    Raises:
        BadCheckpoint: tokenizer and tower do not belong together, or the serving side has no rule.
    """
    place = f"{where}: tokenizer"
    frame = tokenizer("").input_ids
    if not 1 <= len(frame) <= 2:
        raise BadCheckpoint(f"{place}: puts {frame} around a text, not a start and an end token")
    if tokenizer.pad_token_id is None:
        raise BadCheckpoint(f"{place}: pad_token missing")
    if tokenizer.padding_side != "right" or tokenizer.truncation_side != "right":
        raise BadCheckpoint(f"{place}: pads or cuts on the left; the right is needed")
    spec = TextSpec(
        context_length=min(needs.positions, tokenizer.model_max_length),
        cleaning="siglip" if isinstance(tokenizer, SiglipTokenizer) else "none",
        padding=needs.padding,
        pad_id=tokenizer.pad_token_id,
        start_id=frame[0] if len(frame) == 2 else None,
        end_id=frame[-1],
        vocabulary=needs.vocabulary,
        attention_mask=needs.attention_mask,
    )
    _check_vocabulary(place, tokenizer, spec, needs)
    return spec


def tokenizer_json(where: str, tokenizer: Any, spec: TextSpec) -> str:
    """What `diptych.preprocess.text` reads, proved to give the ids of `tokenizer`.

    Raises:
        BadCheckpoint: it is of a kind that `tokenizers` cannot do, or an id differs.
    """
    place = f"{where}: tokenizer"
    if isinstance(tokenizer, SiglipTokenizer):
        if not tokenizer.do_lower_case:
            raise BadCheckpoint(f"{place}: do_lower_case is off; SigLIP's cleaning lowers the case")
        text = sentencepieces.converted(tokenizer)
    elif tokenizer.is_fast:
        text = tokenizer.backend_tokenizer.to_str()
    else:
        raise BadCheckpoint(f"{place}: {type(tokenizer).__name__} has no tokenizer.json")
    _check_ids(place, text, tokenizer, spec)
    return str(text)


def as_text(tokenizer: Any) -> dict[str, bool]:
    """Settings of a call, with which a control token's name inside a text is text, as for us.

    SDXL's second encoder pads with "!", which would else be padding wherever it stands.
    """
    return {"split_special_tokens": True} if tokenizer.is_fast else {}


def _check_vocabulary(place: str, tokenizer: Any, spec: TextSpec, needs: TextNeeds) -> None:
    """Refuse a tokenizer of another model; transformers makes an empty one where files lack."""
    ids = set(tokenizer.get_vocab().values())
    if max(ids) >= spec.vocabulary or 2 * len(ids) < spec.vocabulary:
        problem = f"knows {len(ids)} tokens up to id {max(ids)}, the tower {spec.vocabulary}"
        raise BadCheckpoint(f"{place}: {problem}")
    # Either way the tower would silently read every text off at its first position.
    if needs.end_id not in (None, spec.end_id):
        raise BadCheckpoint(
            f"{place}: ends texts with {spec.end_id}, the tower with {needs.end_id}"
        )
    if needs.highest_ends and max(ids) != spec.end_id:
        problem = f"{spec.end_id} ends a text, but the tower takes the highest id, {max(ids)}"
        raise BadCheckpoint(f"{place}: {problem}")


def _check_ids(place: str, text: str, tokenizer: Any, spec: TextSpec) -> None:
    """Tokenize what the gate tokenizes, here and there."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(text, encoding="utf-8")
        try:
            ours = TextTokenizer(path, spec)
        except BadRepository as error:
            raise BadCheckpoint(f"{place}: {str(error).removeprefix(f'{path}: ')}") from error
        for sample in samples.texts():
            ids = ours.tokenize(sample, truncate=True).tokens.tolist()
            right = tokenizer(
                sample, truncation=True, max_length=spec.context_length, **as_text(tokenizer)
            ).input_ids
            if ids != right:
                raise BadCheckpoint(f"{place}: {sample[:40]!r} becomes {right}, served {ids}")
