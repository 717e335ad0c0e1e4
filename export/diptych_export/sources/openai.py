"""OpenAI's `.pt` in, a `Source` out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from diptych.contract import ImageSpec
from diptych_export.errors import BadCheckpoint
from diptych_export.sources import bpe
from diptych_export.sources.architecture import Architecture, from_shapes
from diptych_export.sources.assembled import assembled
from diptych_export.sources.base import Source
from diptych_export.sources.weights import digest, read_archive

# SHA-256 by file name, from the addresses in openai/CLIP, clip/clip.py.
PUBLISHED = {
    "RN50.pt": "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
    "RN101.pt": "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599",
    "RN50x4.pt": "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd",
    "RN50x16.pt": "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa",
    "RN50x64.pt": "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c",
    "ViT-B-32.pt": "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    "ViT-B-16.pt": "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
    "ViT-L-14.pt": "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
    "ViT-L-14-336px.pt": "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
}

# `_transform` of openai/CLIP, clip/clip.py: the same for all, and in no file.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

_FACTS = ("input_resolution", "context_length", "vocab_size")  # beside the weights in an archive


def open_openai(path: Path, licence: str | None = None) -> Source:
    """Read a TorchScript archive as OpenAI published it, or a state dict of the same names.

    Raises:
        BadCheckpoint: broken, not the file its name promises, or without its tokenizer.
    """
    known = _check_digest(path)
    state = read_archive(path)
    facts = {name: int(state.pop(name)) for name in _FACTS if name in state}
    try:
        whole = from_shapes(state)
    except (KeyError, ValueError, IndexError) as error:
        raise BadCheckpoint(f"{path}: not one of OpenAI's: {error} missing or misshapen") from error
    _check_facts(path, whole, facts)
    return assembled(
        str(path),
        state,
        whole,
        image_spec(whole.image_size),
        bpe.read_merges(path.parent, whole.vocabulary),
        origin=f"OpenAI {path.stem}, SHA-256 {known}" if known else f"OpenAI's layout, {path.name}",
        licence=licence or ("MIT" if known else "unknown"),  # that of openai/CLIP
    )


def image_spec(size: int) -> ImageSpec:
    return ImageSpec(
        size=size,
        resize="shortest",
        resize_to=size,
        interpolation="bicubic",
        rgb="after_resize",
        rounding="torchvision",
        mean=MEAN,
        std=STD,
    )


def _check_digest(path: Path) -> str | None:
    """The published digest of `path`, if it is a published file."""
    found = digest(path)
    promised = PUBLISHED.get(path.name, found)
    if found != promised:
        problem = f"SHA-256 is {found[:12]}…, OpenAI published {promised[:12]}… under this name"
        raise BadCheckpoint(f"{path}: {problem}: broken, or another file")
    return found if found in PUBLISHED.values() else None


def _check_facts(path: Path, whole: Architecture, facts: Mapping[str, int]) -> None:
    sizes = (whole.image_size, whole.context_length, whole.vocabulary)
    found = dict(zip(_FACTS, sizes, strict=True))
    for name, value in facts.items():
        if found[name] != value:
            raise BadCheckpoint(f"{path}: {name} is {value}, the weights are for {found[name]}")
