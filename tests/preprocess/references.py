"""What the towers saw in training, by the code they were trained with or by its published rules."""

from __future__ import annotations

import html
import itertools
from collections.abc import Sequence
from typing import Any

import ftfy
import numpy as np
import regex  # type: ignore[import-untyped]
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.efficientnet.image_processing_pil_efficientnet import (
    EfficientNetImageProcessorPil,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from diptych.contract import ImageSpec
from tests.preprocess.pictures import Array

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


CLIP, SIGLIP, ALIGN = (
    CLIPImageProcessorPil(),
    SiglipImageProcessorPil(),
    EfficientNetImageProcessorPil(),
)


def _pixels(processor: Any, image: Image.Image, **settings: Any) -> Array:
    reply = processor(image, do_rescale=False, do_normalize=False, **settings)
    planes: Array = np.asarray(reply["pixel_values"][0])
    return planes.transpose(1, 2, 0)


def clip(image: Image.Image, spec: ImageSpec) -> Array:
    """transformers' CLIP processor without torchvision."""
    return _pixels(
        CLIP,
        image,
        size={"shortest_edge": spec.resize_to},
        crop_size={"height": spec.size, "width": spec.size},
        resample=FILTERS[spec.interpolation],
    )


def siglip(image: Image.Image, spec: ImageSpec) -> Array:
    """transformers' SigLIP processor: both sides, no crop."""
    return _pixels(
        SIGLIP,
        image,
        size={"height": spec.size, "width": spec.size},
        resample=FILTERS[spec.interpolation],
    )


def align(image: Image.Image, spec: ImageSpec) -> Array:
    """transformers' processor for ALIGN, which is EfficientNet's: both sides, then a crop."""
    return _pixels(
        ALIGN,
        image,
        size={"height": spec.resize_to, "width": spec.resize_to},
        crop_size={"height": spec.size, "width": spec.size},
        do_center_crop=True,
        include_top=False,
        resample=FILTERS[spec.interpolation],
    )


def torchvision(image: Image.Image, spec: ImageSpec) -> Array:
    """Resize(n), CenterCrop(n), convert("RGB"), in the order of openai/CLIP, clip/clip.py.

    Arithmetic of torchvision's transforms.functional: `resize` cuts the long side with int();
    `center_crop` pads a picture that is too small with zeros, the odd pixel right and below, and
    rounds the corner with round().
    """
    width, height, size = *image.size, spec.resize_to
    if spec.resize == "squash":
        target = (size, size)
    elif width < height:
        target = (size, int(size * height / width))
    else:
        target = (int(size * width / height), size)
    resized = image.resize(target, FILTERS[spec.interpolation])
    resized.info = {}
    missing = [max(spec.size - side, 0) for side in target]
    padded = resized.crop(  # beyond its edges a picture is zero
        (
            -(missing[0] // 2),
            -(missing[1] // 2),
            target[0] + (missing[0] + 1) // 2,
            target[1] + (missing[1] + 1) // 2,
        )
    )
    left, top = (round((side - spec.size) / 2.0) for side in padded.size)
    pixels: Array = np.asarray(padded.convert("RGB"))
    return pixels[top : top + spec.size, left : left + spec.size]


CONTROLS = ["<|startoftext|>", "<|endoftext|>"]


class OpenAITokenizer:
    """Byte-pair encoding as published in openai/CLIP, clip/simple_tokenizer.py, told again."""

    WORDS = regex.compile(
        r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
        r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
        regex.IGNORECASE,
    )

    def __init__(self, merges: Sequence[tuple[str, str]]) -> None:
        self._letters = byte_letters()
        self._rank = {pair: rank for rank, pair in enumerate(merges)}
        self._ids = {token: i for i, token in enumerate(openai_vocabulary(merges))}

    def encode(self, text: str) -> list[int]:
        mended = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
        cleaned = regex.sub(r"\s+", " ", mended).strip().lower()
        pieces = [p for word in self.WORDS.findall(cleaned) for p in self._pieces(word)]
        return [self._ids[p] for p in [CONTROLS[0], *pieces, CONTROLS[1]]]

    def _pieces(self, word: str) -> list[str]:
        """Join the neighbours that were joined first in training, until none are left."""
        if word in CONTROLS:  # kept whole by the cache they are put into beforehand
            return [word]
        letters = [self._letters[byte] for byte in word.encode()]
        pieces = [*letters[:-1], letters[-1] + "</w>"]
        while known := [p for p in itertools.pairwise(pieces) if p in self._rank]:
            first, second = min(known, key=self._rank.__getitem__)
            joined: list[str] = []
            for piece in pieces:
                # A piece that was just made is no longer `first`, since no merge keeps its length.
                if joined and joined[-1] == first and piece == second:
                    joined[-1] += piece
                else:
                    joined.append(piece)
            pieces = joined
        return pieces


def byte_letters() -> list[str]:
    """The printable stand-in of every byte: itself where it has a shape, else from 256 upwards."""
    shapes = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)}
    shapes |= set(range(ord("®"), ord("ÿ") + 1))
    spare = iter(range(256, 512))
    return [chr(byte if byte in shapes else next(spare)) for byte in range(256)]


def openai_vocabulary(merges: Sequence[tuple[str, str]]) -> list[str]:
    """Tokens by id: bytes with a shape first, bytes at a word's end, merges, the two controls."""
    letters = sorted(byte_letters())
    ends = [letter + "</w>" for letter in letters]
    return [*letters, *ends, *map("".join, merges), *CONTROLS]
