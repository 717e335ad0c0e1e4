"""Protobuf in, our own types out, and back. Nothing is computed here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from diptych.contract import ModelSpec, Priority, Vector
from diptych.encoder import Embedded, Input, Outcome, Reading
from diptych.errors import BadInput
from diptych.gateway.rules import Limits
from diptych.gateway.served import Served
from diptych.gateway.status import to_status
from diptych.gateway.telemetry import note
from diptych.scorer import RowOutcome
from diptych.scoring import Measure
from diptych.v1 import embedding_pb2 as pb

MEASURES = {
    pb.MEASURE_COSINE: Measure.COSINE,
    pb.MEASURE_LOGIT: Measure.LOGIT,
    pb.MEASURE_SOFTMAX: Measure.SOFTMAX,
    pb.MEASURE_SIGMOID: Measure.SIGMOID,
    pb.MEASURE_CLIPSCORE: Measure.CLIPSCORE,
}
_FLOATS = {pb.DATA_TYPE_FLOAT32: "<f4", pb.DATA_TYPE_FLOAT16: "<f2"}


def to_inputs(messages: Iterable[pb.Input]) -> list[Input | BadInput]:
    """Each input, or what is wrong with it as it stands in the message."""
    return [_to_input(message) for message in messages]


def to_pixels(tensor: pb.Tensor) -> npt.NDArray[np.uint8] | BadInput:
    """The array, or what is wrong with it as it stands in the message."""
    if tensor.data_type != pb.DATA_TYPE_UINT8:
        return BadInput.at("pixels.data_type", "must be DATA_TYPE_UINT8")
    if len(tensor.data) != math.prod(tensor.shape):
        found = f"{len(tensor.data)} bytes for shape {list(tensor.shape)}"
        return BadInput.at("pixels.data", f"{found}: one byte a value is needed")
    return np.frombuffer(tensor.data, np.uint8).reshape(tensor.shape)


def to_reading(options: pb.Options, spec: ModelSpec, deadline: float, usual: Priority) -> Reading:
    """How a call wants its inputs read.

    Raises:
        BadInput: more dimensions than the model has.
    """
    if options.dimensions > spec.embed_dim:
        problem = f"{options.dimensions} of a model with {spec.embed_dim} dimensions"
        raise BadInput.at("options.dimensions", problem)
    return Reading(
        truncate=options.truncation == pb.TRUNCATION_CUT,
        exif=options.orientation != pb.ORIENTATION_IGNORE,
        dimensions=options.dimensions,
        priority=Priority(options.priority) if options.priority else usual,
        deadline=deadline,
    )


def to_measure(measure: pb.Measure, spec: ModelSpec) -> pb.Measure:
    """The measure meant: the checkpoint's own where none is named."""
    if measure == pb.MEASURE_UNSPECIFIED:
        return pb.MEASURE_SIGMOID if spec.score == "sigmoid" else pb.MEASURE_SOFTMAX
    return measure


def from_space(spec: ModelSpec, dimensions: int = 0) -> pb.Space:
    return pb.Space(
        model=spec.name,
        version=spec.version,
        fingerprint=spec.fingerprint,
        dimensions=dimensions or spec.embed_dim,
    )


def from_outcome(outcome: Outcome, data_type: pb.DataType) -> pb.EmbedResult:
    if not isinstance(outcome, Embedded):
        return pb.EmbedResult(error=to_status(outcome))
    return pb.EmbedResult(
        embedding=_to_bytes(outcome.vector, data_type),
        tokens=outcome.tokens,
        tokens_dropped=outcome.tokens_dropped,
    )


def from_row(row: RowOutcome) -> pb.ScoreResult:
    if isinstance(row, Exception):
        return pb.ScoreResult(error=to_status(row))
    values = _to_bytes(row.values, pb.DATA_TYPE_FLOAT32)
    return pb.ScoreResult(scores=pb.Scores(values=values, candidates=row.candidates))


def from_timings(outcomes: Sequence[Outcome]) -> pb.Timings:
    """The longest of each stage over all inputs that have a vector."""
    stages = [
        (outcome.decode_s, outcome.queue_s, outcome.engine_s)
        for outcome in outcomes
        if isinstance(outcome, Embedded)
    ]
    longest = [round(max(stage) * 1e6) for stage in zip(*stages, strict=True)] or [0, 0, 0]
    timings = dict(zip(("decode_us", "queue_us", "engine_us"), longest, strict=True))
    note(**timings)
    return pb.Timings(**timings)


def from_served(model: Served) -> pb.Model:
    spec = model.spec
    return pb.Model(
        space=from_space(spec),
        image_size=spec.image.size,
        context_length=spec.text.context_length,
        logit_scale=spec.logit_scale,
        logit_bias=spec.logit_bias,
        default_measure=to_measure(pb.MEASURE_UNSPECIFIED, spec),
        precision=spec.precision,
        engine=model.engine.description,
        source=spec.source,
        licence=spec.licence,
        label_sets=[
            pb.LabelSet(name=name, version=found.file.version, size=len(found.file.labels))
            for name, found in sorted(model.label_sets.items())
        ],
    )


def from_limits(limits: Limits) -> pb.Limits:
    return pb.Limits(
        inputs_per_request=limits.inputs,
        request_bytes=limits.request_bytes,
        image_bytes=limits.image.max_bytes,
        image_pixels=limits.image.max_pixels,
        text_characters=limits.text_characters,
        templated_texts=limits.templated_texts,
        stream_inputs=limits.stream_inputs,
        image_formats=limits.image.formats,
    )


def _to_input(message: pb.Input) -> Input | BadInput:
    kind = message.WhichOneof("kind")
    if kind == "image":
        return message.image
    if kind == "text":
        return message.text
    if kind is None:
        return BadInput.at("kind", "one of image, text and pixels is required")
    return to_pixels(message.pixels)


def _to_bytes(values: Vector, data_type: pb.DataType) -> bytes:
    return values.astype(_FLOATS.get(data_type, "<f4"), copy=False).tobytes()
