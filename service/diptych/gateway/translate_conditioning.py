"""The protobuf of conditioning in, our own types out, and back. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from diptych.conditioning import Conditioned
from diptych.contract import ModelSpec, Tower
from diptych.engines.base import Array
from diptych.errors import BadInput
from diptych.gateway.translate import from_space, to_pixels
from diptych.profiles import Profile, TensorRule
from diptych.prompts import PromptTokens
from diptych.v1 import conditioning_pb2 as pb
from diptych.v1 import embedding_pb2
from diptych.wishes import Picture, Prompt, Wish

PART_BYTES = 2**20  # of the data of one message of a stream

_LONG: dict[int, Literal["usual", "chunks", "cut", "refuse"]] = {
    pb.LONG_PROMPT_UNSPECIFIED: "usual",
    pb.LONG_PROMPT_CHUNKS: "chunks",
    pb.LONG_PROMPT_CUT: "cut",
    pb.LONG_PROMPT_REFUSE: "refuse",
}
_MISSING = {
    "empty": pb.MISSING_NEGATIVE_EMPTY,
    "zeros": pb.MISSING_NEGATIVE_ZEROS,
    "none": pb.MISSING_NEGATIVE_NONE,
}


def to_wish(request: pb.ConditionRequest) -> Wish:
    """What is asked for.

    Raises:
        BadInput: naming an image that is none.
    """
    return Wish(
        prompts=[_to_prompt(message) for message in request.prompts],
        images=[_to_picture(message, index) for index, message in enumerate(request.images)],
        clip_skip=request.clip_skip,
        is_weighted=request.emphasis != pb.EMPHASIS_LITERAL,
        long_prompt=_LONG[request.long_prompt],
        unguided=request.unguided,
    )


def from_conditioned(
    profile: str,
    specs: Sequence[ModelSpec],
    found: Conditioned,
    data_type: embedding_pb2.DataType,
) -> pb.ConditionResponse:
    """`specs`: of the encoders used, in order.

    Raises:
        BadInput: a number is beyond what float16 holds.
    """
    stages = [(answer.queue_s, answer.engine_s) for answer in found.answers]
    queue_s, engine_s = (max(stage) for stage in zip(*stages, strict=True))
    return pb.ConditionResponse(
        profile=profile,
        spaces=[from_space(spec) for spec in specs],
        tensors=[
            pb.NamedTensor(name=name, tensor=_from_array(name, array, data_type))
            for name, array in found.tensors.items()
        ],
        readings=[
            pb.PromptReading(
                prompt=map(_from_tokens, one.prompt), negative=map(_from_tokens, one.negative)
            )
            for one in found.readings
        ],
        chunks=found.chunks,
        timings=embedding_pb2.Timings(
            decode_us=round(found.decode_s * 1e6),
            queue_us=round(queue_s * 1e6),
            engine_us=round(engine_s * 1e6),
        ),
    )


def in_parts(answer: pb.ConditionResponse) -> Iterator[pb.ConditionStreamResponse]:
    """The answer without its data, then the data."""
    datas = [named.tensor.data for named in answer.tensors]
    for named in answer.tensors:
        named.tensor.data = b""
    yield pb.ConditionStreamResponse(header=answer)
    for data in datas:
        for start in range(0, len(data), PART_BYTES):
            yield pb.ConditionStreamResponse(data=data[start : start + PART_BYTES])


def from_profile(profile: Profile) -> pb.Profile:
    return pb.Profile(
        name=profile.name,
        description=profile.description,
        encoders=[
            pb.ProfileEncoder(model=one.model, is_text=one.tower is Tower.TEXT)
            for one in profile.encoders
        ],
        tensors=map(_from_rule, profile.tensors),
        missing_negative=_MISSING[profile.missing_negative],
        chunks=profile.chunks,
    )


def _to_prompt(message: pb.Prompt) -> Prompt:
    return Prompt(
        text=message.text,
        text_2=message.text_2 if message.HasField("text_2") else None,
        negative=message.negative if message.HasField("negative") else None,
        negative_2=message.negative_2 if message.HasField("negative_2") else None,
    )


def _to_picture(message: embedding_pb2.Input, index: int) -> Picture:
    kind = message.WhichOneof("kind")
    if kind == "image":
        return message.image
    if kind != "pixels":
        raise BadInput.at(f"images[{index}]", "image or pixels is required")
    pixels = to_pixels(message.pixels)
    if isinstance(pixels, BadInput):
        raise pixels.within(f"images[{index}]")
    return pixels


def _from_array(name: str, array: Array, data_type: embedding_pb2.DataType) -> embedding_pb2.Tensor:
    if array.dtype == np.bool_:
        kind, values = embedding_pb2.DATA_TYPE_BOOL, array
    elif data_type == embedding_pb2.DATA_TYPE_FLOAT16:
        kind = embedding_pb2.DATA_TYPE_FLOAT16
        with np.errstate(over="ignore"):
            values = array.astype("<f2")
        if not np.isfinite(values).all():
            problem = f"{name} holds numbers beyond float16: ask for DATA_TYPE_FLOAT32"
            raise BadInput.at("data_type", problem)
    else:
        kind, values = embedding_pb2.DATA_TYPE_FLOAT32, array.astype("<f4", copy=False)
    return embedding_pb2.Tensor(data_type=kind, shape=array.shape, data=values.tobytes())


def _from_tokens(tokens: PromptTokens) -> pb.TextReading:
    return pb.TextReading(
        tokens=len(tokens.ids),
        chunks=tokens.chunks,
        tokens_dropped=tokens.dropped,
        dropped=tokens.dropped_text,
    )


def _from_rule(rule: TensorRule) -> pb.ProfileTensor:
    return pb.ProfileTensor(
        name=rule.name, negative_name=rule.negative or "", encoders=rule.encoders
    )
