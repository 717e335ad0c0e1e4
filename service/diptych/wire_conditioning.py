"""What is said and heard of conditioning, as Python and NumPy in place of protobuf.

For both clients.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from diptych import wire
from diptych.v1 import conditioning_pb2 as pb
from diptych.v1 import embedding_pb2
from diptych.wire import Input, Options, Space, Timings

LongPrompt: TypeAlias = Literal["default", "chunks", "cut", "refuse"]
Array: TypeAlias = npt.NDArray[Any]

_DTYPES: dict[int, np.dtype[Any]] = {
    embedding_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    embedding_pb2.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    embedding_pb2.DATA_TYPE_BOOL: np.dtype(np.bool_),
}
_OF_ADAPTERS = (
    "ip_adapter_image_embeds"  # of which diffusers' pipelines take a list, one an adapter
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt with its negative; `_2` is for the second text encoder, where it differs."""

    text: str
    negative: str | None = None  # None: what the profile says
    text_2: str | None = None
    negative_2: str | None = None


@dataclass(frozen=True, slots=True)
class TextReading:
    """How a text was read by one encoder."""

    tokens: int  # start and end tokens not included
    chunks: int
    tokens_dropped: int
    dropped: str  # the text that was dropped


@dataclass(frozen=True, slots=True)
class PromptReading:
    """One entry a text encoder."""

    prompt: tuple[TextReading, ...]
    negative: tuple[TextReading, ...]


@dataclass(frozen=True, slots=True)
class ConditionReply:
    """The tensors of one batch, by the names that the generators' pipelines have for them."""

    profile: str
    spaces: tuple[Space, ...]  # one an encoder used
    tensors: dict[str, Array]  # float32 or float16, masks bool; prompts or images first
    readings: tuple[PromptReading, ...]  # one a prompt
    chunks: int  # that every prompt has, empty ones included
    timings: Timings

    def arguments(self, *, torch: bool = False) -> dict[str, Any]:
        """The tensors as keyword arguments of a pipeline of diffusers: `pipe(**arguments)`.

        NumPy; or PyTorch, which must be installed. Adapters' come in a list, as pipelines take
        them.
        """
        found: dict[str, Any] = dict(self.tensors)
        if torch:
            library = import_module("torch")  # the caller's own; nothing here needs it
            found = {name: library.from_numpy(array.copy()) for name, array in found.items()}
        if _OF_ADAPTERS in found:
            found[_OF_ADAPTERS] = [found[_OF_ADAPTERS]]
        return found


@dataclass(frozen=True, slots=True)
class Conditioning:
    """How prompts are to be read. The defaults are the server's."""

    models: tuple[str, ...] = ()  # one an encoder of the profile; none: its own, or the default one
    clip_skip: int = 0  # as the profile's pipelines count it
    literal: bool = False  # brackets are text, and weigh nothing
    long_prompt: LongPrompt = "default"
    unguided: bool = False  # no negative tensors
    half: bool = False  # float16


USUAL = Conditioning()


def condition_request(
    profile: str,
    prompts: Sequence[str | Prompt] | str,
    negatives: Sequence[str] | str | None,
    images: Sequence[Input],
    how: Conditioning,
    options: Options,
) -> pb.ConditionRequest:
    """`negatives`: one for every prompt, or one for all of them; not where a Prompt has its own.

    Raises:
        ValueError: as many as there are prompts are needed.
    """
    name = "UNSPECIFIED" if how.long_prompt == "default" else how.long_prompt.upper()
    return pb.ConditionRequest(
        options=options.message(),
        profile=profile,
        encoders=[pb.EncoderModel(model=model) for model in how.models],
        prompts=_prompts(prompts, negatives),
        images=[wire.to_input(image) for image in images],
        clip_skip=how.clip_skip,
        emphasis=pb.EMPHASIS_LITERAL if how.literal else pb.EMPHASIS_WEIGHTED,
        long_prompt=f"LONG_PROMPT_{name}",
        unguided=how.unguided,
        data_type=wire.data_type(how.half),
    )


def condition_reply(message: pb.ConditionResponse) -> ConditionReply:
    return ConditionReply(
        profile=message.profile,
        spaces=tuple(map(Space.of, message.spaces)),
        tensors={named.name: _array(named.tensor) for named in message.tensors},
        readings=tuple(
            PromptReading(tuple(map(_reading, one.prompt)), tuple(map(_reading, one.negative)))
            for one in message.readings
        ),
        chunks=message.chunks,
        timings=Timings.of(message.timings),
    )


class Parts:
    """Puts one answer of a stream together."""

    def __init__(self) -> None:
        self._header = pb.ConditionResponse()
        self._data = bytearray()

    def add(self, part: pb.ConditionStreamResponse) -> None:
        if part.HasField("header"):
            self._header = part.header
        self._data += part.data

    def reply(self) -> ConditionReply:
        """The whole answer, once its stream has ended."""
        start = 0
        for named in self._header.tensors:
            end = start + _bytes(named.tensor)
            named.tensor.data = bytes(self._data[start:end])
            start = end
        return condition_reply(self._header)


def _prompts(
    prompts: Sequence[str | Prompt] | str, negatives: Sequence[str] | str | None
) -> Iterable[pb.Prompt]:
    given = [prompts] if isinstance(prompts, str) else list(prompts)
    each: Sequence[str | None] = [None] * len(given)
    if negatives is not None:
        each = [negatives] * len(given) if isinstance(negatives, str) else list(negatives)
    if len(each) != len(given):
        raise ValueError(f"{len(each)} negatives for {len(given)} prompts")
    for prompt, negative in zip(given, each, strict=True):
        if isinstance(prompt, str):
            yield pb.Prompt(text=prompt, negative=negative)
        elif negative is not None:
            raise ValueError("negatives: a Prompt has its own")
        else:
            yield pb.Prompt(
                text=prompt.text,
                text_2=prompt.text_2,
                negative=prompt.negative,
                negative_2=prompt.negative_2,
            )


def _array(tensor: embedding_pb2.Tensor) -> Array:
    return np.frombuffer(tensor.data, _DTYPES[tensor.data_type]).reshape(tensor.shape)


def _bytes(tensor: embedding_pb2.Tensor) -> int:
    return int(np.prod(tensor.shape, dtype=np.int64)) * _DTYPES[tensor.data_type].itemsize


def _reading(message: pb.TextReading) -> TextReading:
    return TextReading(message.tokens, message.chunks, message.tokens_dropped, message.dropped)
