"""What the two towers eat and emit. Every other module agrees with this one."""

from __future__ import annotations

import enum
from typing import Annotated, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

Pixels: TypeAlias = npt.NDArray[np.uint8]  # [S, S, 3], RGB, 0..255
Tokens: TypeAlias = npt.NDArray[np.int64]  # [L'], start and end tokens included, not padded
Vector: TypeAlias = npt.NDArray[np.float32]  # [D], unit length unless said otherwise
Matrix: TypeAlias = npt.NDArray[np.float32]  # [N, D], one Vector a row

TEXTS_A_ROW = 16  # that a graph can tell apart where texts are packed side by side

Triple: TypeAlias = tuple[float, float, float]  # red, green, blue
Size: TypeAlias = Annotated[int, Field(gt=0)]
TokenId: TypeAlias = Annotated[int, Field(ge=0)]
Digest: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # SHA-256, hexadecimal


class Tower(enum.StrEnum):
    """The two encoders. Values are the suffixes of their folders in a model repository."""

    IMAGE = "image"
    TEXT = "text"


class Priority(enum.IntEnum):
    """Who goes first: the smaller number."""

    INTERACTIVE = 1
    BULK = 2


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ImageSpec(_Spec):
    """How an encoded image becomes the `pixel_values` its tower was trained on."""

    size: Size  # S: pixels per side
    resize: Literal["shortest", "squash"]  # shortest side to `resize_to`, or both sides to it
    resize_to: Size  # pixels; larger than `size` where the checkpoint crops
    interpolation: Literal["bilinear", "bicubic", "lanczos"]
    rgb: Literal["before_resize", "after_resize"]  # when a file's colour mode becomes RGB
    rounding: Literal["huggingface", "torchvision"]  # of the long side and of the crop's corner
    mean: Triple  # of values in 0..1; subtracted inside the graph
    std: Triple  # of values in 0..1; divided by inside the graph


class TextSpec(_Spec):
    """How a string becomes the `input_ids` its tower was trained on."""

    context_length: Size  # L: tokens per text, start and end tokens included
    cleaning: Literal["none", "openai", "siglip"]  # of the text, before the tokenizer sees it
    padding: Literal["longest", "max_length"]  # to the batch's longest, or always to L
    pad_id: TokenId
    start_id: TokenId | None  # None where the tokenizer adds none
    end_id: TokenId
    vocabulary: Size  # ids are below it
    attention_mask: bool  # whether the tower takes one


class ModelSpec(_Spec):
    """One dual encoder, in numbers. Written by export, read at start-up, never edited by hand.

    The same bytes lie beside both towers.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    version: Size  # the number of the version folder
    fingerprint: Digest  # names the space; repository.fingerprint says over what
    image: ImageSpec
    text: TextSpec
    embed_dim: Size  # D: floats per vector, the same for both towers
    image_hidden_size: Size | None  # of its hidden states; None where it is no transformer
    text_hidden_size: Size  # of the text tower's hidden states
    logit_scale: Annotated[float, Field(gt=0)]  # multiplies a cosine (already exponentiated)
    logit_bias: float  # added to it; 0 where the checkpoint has none
    score: Literal["softmax", "sigmoid"]  # what the checkpoint was trained with
    precision: Literal["fp32", "bf16", "fp16", "int8"]  # of the weights in the graphs
    source: str  # where the weights came from, for a person
    licence: str  # SPDX identifier, or what the source said
    parity: dict[str, float]  # figures of the export's gate, by name
    canary: Canary
    absent: Tower | None = None  # which the checkpoint has not; its graph answers one fixed vector
    projected: bool = True  # False: a lone text encoder whose vectors are its pooled states
    zero_image: Digest | None = None  # of the file of that name, where there is one

    @property
    def folders(self) -> dict[Tower, str]:
        """The towers' folder names in a model repository, which are Triton's model names."""
        return {tower: f"{self.name}_{tower}" for tower in Tower}

    def outputs(self, tower: Tower) -> frozenset[str]:
        """What the graph of a tower answers, by name: each was proved, and so has a figure.

        None of a tower that is absent; no `text_embeds` where nothing projects.
        """
        if tower is self.absent:
            return frozenset()
        names = (name.partition(".") for name in self.parity)
        found = frozenset(output for prefix, _, output in names if prefix == tower)
        return found if self.projected or tower is Tower.IMAGE else found - {"text_embeds"}


class Canary(_Spec):
    """What the reference answered for `canary_pixels` and `canary_tokens`: [D] unit vectors."""

    image: tuple[float, ...]
    text: tuple[float, ...]


def canary_pixels(spec: ImageSpec) -> Pixels:
    """A fixed picture: red grows to the right, green downwards, blue in a checkerboard."""
    ramp = np.linspace(0, 255, spec.size).astype(np.uint8)
    rows, columns = np.indices((spec.size, spec.size))
    blue = ((rows // 8 + columns // 8) % 2 * 255).astype(np.uint8)
    return np.stack([ramp[columns], ramp[rows], blue], axis=-1)


def canary_tokens(spec: TextSpec) -> Tokens:
    """A fixed text of up to eight tokens: start, a few ids spread over the vocabulary, end."""
    length = min(6, spec.context_length - 2)
    body = np.linspace(spec.vocabulary // 4, spec.vocabulary // 2, length).astype(np.int64)
    start = [] if spec.start_id is None else [spec.start_id]
    return np.array([*start, *body, spec.end_id], dtype=np.int64)
