"""A directory or hub id in transformers' layout in; model, processor and tokenizer out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoTokenizer
from transformers.utils import logging
from transformers.utils.hub import cached_file

from diptych_export.errors import BadCheckpoint
from diptych_export.sources.families import Family, family
from diptych_export.sources.weights import check_finite, one_line, refuse_names

TOKENIZERS = (  # any one of these is a tokenizer; without one, transformers makes an empty one
    "tokenizer.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
)
# Not weights: counters that old versions of transformers saved, and a head the model leaves out.
_LEFT_OVER = (
    "position_ids",
    "token_type_ids",
    "text_model.pooler.dense.weight",
    "text_model.pooler.dense.bias",
)


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A checkpoint, read whole."""

    where: str
    family: Family
    model: Any  # in float32, for inference
    tokenizer: Any
    processor: Any  # of images
    written: Mapping[str, Any]  # what the checkpoint says of it
    card: str  # README.md, or nothing


def read(where: str) -> Pretrained:
    """Read `where`, from disk alone if it is a directory.

    Raises:
        BadCheckpoint: a file or weight is missing, broken, left over, or a pickle.
    """
    config = read_json(where, "config.json")
    kind = family(where, str(config.get("model_type")))
    if not any(_file(where, name) for name in TOKENIZERS):
        raise BadCheckpoint(f"{where}: no tokenizer: none of {', '.join(TOKENIZERS)}")
    written = _processor_settings(where)
    check_weights_file(where)
    card = _file(where, "README.md")
    with one_line(where), quiet():
        return Pretrained(
            where=where,
            family=kind,
            model=load_model(where, kind.model),
            tokenizer=AutoTokenizer.from_pretrained(where, **local(where)),
            processor=AutoImageProcessor.from_pretrained(where, **local(where)),
            written=written,
            card=card.read_text(encoding="utf-8") if card else "",
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Leave the terminal to our own messages."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def local(where: str) -> dict[str, Any]:
    return {"local_files_only": Path(where).is_dir(), "trust_remote_code": False}


def _file(where: str, name: str, *, needed: bool = False) -> Path | None:
    """A file of the checkpoint, fetched if it is on the hub; None where there is none.

    If it is `needed`, a hub that cannot be reached says so itself.
    """
    if Path(where).is_dir():
        path = Path(where) / name
        return path if path.is_file() else None
    with one_line(where), quiet():
        found = cached_file(where, name, _raise_exceptions_for_missing_entries=needed)
    return Path(found) if found else None


def read_json(where: str, name: str) -> dict[str, Any]:
    path = _file(where, name, needed=True)
    if path is None:
        raise BadCheckpoint(f"{where}: no {name}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadCheckpoint(f"{where}: {name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise BadCheckpoint(f"{where}: {name} is no JSON object")
    return content


def _processor_settings(where: str) -> Mapping[str, Any]:
    """What the checkpoint says of its image processor; newer ones say it inside another file."""
    if _file(where, "preprocessor_config.json"):
        return read_json(where, "preprocessor_config.json")
    if _file(where, "processor_config.json"):
        settings = read_json(where, "processor_config.json").get("image_processor")
        if isinstance(settings, dict):
            return settings
    raise BadCheckpoint(f"{where}: no preprocessor_config.json: nothing says how to treat pictures")


def check_weights_file(where: str) -> None:
    """Say what is wrong with a directory; of the hub, transformers fetches nothing else anyway."""
    if not Path(where).is_dir():
        return
    if any(_file(where, f"model.safetensors{end}") for end in ("", ".index.json")):
        return
    for name in ("pytorch_model.bin", "pytorch_model.bin.index.json"):
        if _file(where, name):
            problem = f"{name} is a pickle, which runs code when it is read"
            raise BadCheckpoint(f"{where}: {problem}; only safetensors are opened")
    raise BadCheckpoint(f"{where}: no model.safetensors")


def load_model(where: str, library: Any) -> Any:
    """Of transformers' class `library`, in float32, for inference.

    Raises:
        BadCheckpoint: a weight is missing, left over, of another shape, or not finite.
    """
    model, found = library.from_pretrained(
        where,
        use_safetensors=True,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,  # reported below, in one line
        output_loading_info=True,
        **local(where),
    )
    for problem in ("missing", "unexpected", "mismatched"):
        names = sorted(_name(key) for key in found[f"{problem}_keys"])
        refuse_names(where, problem, [n for n in names if not n.endswith(_LEFT_OVER)])
    check_finite(where, model.state_dict())
    return model.eval()


def _name(key: Any) -> str:
    """Mismatched ones come with their shapes."""
    return str(key if isinstance(key, str) else f"{key[0]} is {list(key[1])}, not {list(key[2])}")
