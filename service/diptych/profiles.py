"""Profiles: what one family of image generators takes from CLIP, declared as data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from diptych.contract import TokenId, Tower

Name: TypeAlias = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
TensorName: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Count: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=65_536)]


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Encoder(_Said):
    """A tower that the generator has, and how its inputs are prepared."""

    tower: Tower = Tower.TEXT
    model: Name | None = None  # None: the caller names it, or the server's default is meant
    pad: Literal["model", "end"] | TokenId = "model"  # the model's own id, its end token's, or this
    # Where it stands in a prompt, it becomes `pad`: transformers' tokenizers find the padding's
    # name in every text, which for SDXL's second encoder is the exclamation mark.
    pad_text: Annotated[str, Field(min_length=1)] | None = None
    masked: bool = False  # whether the tower is to heed a mask, that padding be not seen


class TensorRule(_Said):
    """One tensor of a reply: which outputs it is made of, and how it is shaped.

    Several encoders' are put side by side along the last dimension.
    """

    name: TensorName
    negative: TensorName | None = None  # what the one of the negative prompt is called
    encoders: Annotated[tuple[Count, ...], Field(min_length=1)] = (0,)  # indexes, one kind of tower
    # states: of every token or patch; embeds: projected; pooled: not projected; mask: of tokens
    take: Literal["states", "embeds", "pooled", "mask"]
    layer: Annotated[int, Field(strict=True, ge=0, le=99)] = 0  # last layers left out of `states`
    norm: bool = False  # whether `states` pass the final norm
    clip_skip: bool = False  # whether a caller may leave out more layers of `states`
    width: Count | None = None  # zeros to the right, up to so many numbers a token
    zero_tokens: Count = 0  # so many tokens of zeros behind
    keep_axis: bool = False  # [B, 1, D] in place of [B, D]
    # [2, N, …] in place of two tensors [N, …]: negatives, then positives; [1, N, …] unguided
    stacked: bool = False


class Profile(_Said):
    """What a profile file says. Later fields are held against earlier ones, in this order."""

    name: Name
    description: str = ""
    encoders: Annotated[tuple[Encoder, ...], Field(min_length=1, max_length=4)]
    # Of texts: what stands for a negative prompt that a caller leaves out.
    missing_negative: Literal["empty", "zeros", "none"] = "empty"
    # Of images: numbers that are zero, or what the tower makes of pixel values that are zero.
    negative_image: Literal["zeros", "zero_image"] = "zero_image"
    negative_skips: bool = False  # whether clip_skip counts for negative prompts; not in diffusers
    chunks: bool = True  # whether the generator takes prompts of several contexts
    tensors: Annotated[tuple[TensorRule, ...], Field(min_length=1)]

    @field_validator("encoders")
    @classmethod
    def _at_most_two_texts(cls, encoders: tuple[Encoder, ...]) -> tuple[Encoder, ...]:
        if sum(one.tower is Tower.TEXT for one in encoders) > 2:
            raise ValueError("more than two text encoders; a prompt has two texts at most")
        for number, one in enumerate(encoders):
            if one.tower is Tower.IMAGE and (one.masked or one.pad_text or one.pad != "model"):
                raise ValueError(f"number {number}: an image tower has neither padding nor mask")
            if one.pad_text and one.pad == "model":
                raise ValueError(f"number {number}: pad_text needs a pad of its own")
        return encoders

    @field_validator("tensors")
    @classmethod
    def _goes_with_encoders(
        cls, tensors: tuple[TensorRule, ...], info: ValidationInfo
    ) -> tuple[TensorRule, ...]:
        named = [name for one in tensors for name in (one.name, one.negative) if name]
        for name, times in Counter(named).items():
            if times > 1:
                raise ValueError(f"{name!r} stands twice")
        encoders = info.data.get("encoders", ())
        for one in tensors if encoders else ():
            if problem := _misfit(one, encoders):
                raise ValueError(f"{one.name!r}: {problem}")
        return tensors

    def tower_of(self, tensor: TensorRule) -> Tower:
        """The kind of tower that a tensor's encoders have."""
        return self.encoders[tensor.encoders[0]].tower

    def of(self, tower: Tower) -> list[int]:
        """The encoders of this kind, as indexes."""
        return [number for number, one in enumerate(self.encoders) if one.tower is tower]

    @property
    def skips(self) -> bool:
        """Whether a caller may give a clip_skip."""
        return any(tensor.clip_skip for tensor in self.tensors)


def output_of(tower: Tower, tensor: TensorRule, skip: int = 0) -> str | None:
    """The graph's output that a tensor is made of, `skip` more layers left out; None: of none.

    States are counted from the last layer, 0, and named for whether they passed the final norm.
    """
    if tensor.take == "mask":
        return None
    if tensor.take == "embeds":
        return f"{tower}_embeds"
    if tensor.take == "pooled":
        return "pooled"
    layer = tensor.layer + (skip if tensor.clip_skip else 0)
    return states_output(layer, norm=tensor.norm)


def states_output(layer: int, *, norm: bool) -> str:
    """The name of the states behind all but the last `layer` layers, in every graph of ours."""
    known = {(0, True): "last_hidden_state", (1, False): "penultimate_hidden_state"}
    return known.get((layer, norm), f"{'normed_' if norm else ''}hidden_state_{layer}")


def _misfit(tensor: TensorRule, encoders: Sequence[Encoder]) -> str | None:
    """What is wrong with a tensor, given the encoders there are."""
    if strange := [number for number in tensor.encoders if number >= len(encoders)]:
        return f"encoders: there is no encoder {strange[0]}"
    towers = {encoders[number].tower for number in tensor.encoders}
    if len(towers) > 1:
        return "encoders: of text and image towers"
    of_states: dict[str, int | None] = {
        "layer": tensor.layer,
        "norm": tensor.norm,
        "clip_skip": tensor.clip_skip,
    }
    of_states |= {"width": tensor.width, "zero_tokens": tensor.zero_tokens}
    if tensor.take != "states" and (given := [name for name, value in of_states.items() if value]):
        return f"{given[0]}: only states have it"
    if towers == {Tower.IMAGE}:
        if tensor.take not in ("embeds", "states"):
            return f"take: an image tower has no {tensor.take}"
        if tensor.take == "states" and (tensor.layer != 1 or tensor.norm or tensor.clip_skip):
            return "layer: of an image tower only the penultimate states, layer 1 without norm"
        return None
    if tensor.stacked:
        return "stacked: only tensors of image towers are"
    return None
