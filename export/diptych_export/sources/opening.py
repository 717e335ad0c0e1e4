"""A path or hub id in, a `Source` out: which kind of checkpoint it is, is found here."""

from __future__ import annotations

import re
from pathlib import Path

from diptych_export.errors import BadCheckpoint
from diptych_export.sources import lone, openclip
from diptych_export.sources.base import Source
from diptych_export.sources.huggingface import open_huggingface
from diptych_export.sources.openai import open_openai
from diptych_export.sources.openclip import open_openclip

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def open_source(where: str, *, licence: str | None = None) -> Source:
    """Read a checkpoint of any kind we know.

    - a directory in transformers' layout (ours are), or the id of one on the Hugging Face hub;
    - a text or image encoder alone, in transformers' layout, its tokenizer or image processor with
      it or beside it as diffusers has them: the other tower is then absent;
    - a directory of OpenCLIP's, or its open_clip_config.json, where both kinds lie together;
    - a `.pt` of OpenAI's, with `bpe_simple_vocab_16e6.txt.gz` or a tokenizer.json beside it.

    `licence` overrules what the checkpoint says of its own.

    Raises:
        BadCheckpoint: one line that says what is missing or cannot be served.
    """
    path = Path(where)
    if path.name == openclip.CONFIG and path.is_file():
        return open_openclip(path.parent, licence)
    if path.is_file():
        return _open_file(path, licence)
    if (path / openclip.CONFIG).is_file() and not (path / "config.json").is_file():
        return open_openclip(path, licence)
    if lone.is_lone(path):
        return lone.open_lone(path, licence)
    if path.is_dir() or (not path.exists() and _HUB_ID.fullmatch(where)):
        return open_huggingface(where, licence)
    raise BadCheckpoint(f"{where}: neither a file, nor a directory, nor an id on the hub")


def _open_file(path: Path, licence: str | None) -> Source:
    if path.suffix == ".pt":
        return open_openai(path, licence)
    if path.suffix in (".bin", ".pkl", ".pickle", ".pth", ".ckpt"):
        raise BadCheckpoint(f"{path}: may be a pickle, which runs code when it is read")
    raise BadCheckpoint(f"{path}: a directory or an OpenAI .pt is needed, not a single file")
