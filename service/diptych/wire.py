"""What a caller says and hears, as Python and NumPy in place of protobuf. For both clients."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from diptych.errors import DiptychError
from diptych.v1 import embedding_pb2 as pb
from diptych.wire_errors import code_name as code_name
from diptych.wire_errors import to_error as to_error

# An encoded image, a text, ready pixels [S, S, 3], or the path of an image file.
Input: TypeAlias = bytes | str | npt.NDArray[np.uint8] | os.PathLike[str]
Vectors: TypeAlias = npt.NDArray[np.floating[Any]]  # float32, or float16 where asked for

MeasureName: TypeAlias = Literal["default", "cosine", "logit", "softmax", "sigmoid", "clipscore"]

_DTYPES: dict[int, np.dtype[np.floating[Any]]] = {
    pb.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    pb.DATA_TYPE_FLOAT16: np.dtype("<f2"),
}


@dataclass(frozen=True, slots=True)
class Options:
    """How a call is to be answered: `pb.Options` in Python. The defaults are the server's."""

    model: str = ""  # "": the server's default model
    expected_fingerprint: str = ""  # "": any space
    dimensions: int = 0  # 0: all
    truncate: bool = False  # cut over-long texts, rather than refuse them
    exif: bool = True  # turn images upright as their EXIF says
    priority: Literal["default", "interactive", "bulk"] = "default"

    def message(self) -> pb.Options:
        return pb.Options(
            model=self.model,
            expected_fingerprint=self.expected_fingerprint,
            dimensions=self.dimensions,
            truncation=pb.TRUNCATION_CUT if self.truncate else pb.TRUNCATION_REFUSE,
            orientation=pb.ORIENTATION_EXIF if self.exif else pb.ORIENTATION_IGNORE,
            priority={
                "default": pb.PRIORITY_UNSPECIFIED,
                "interactive": pb.PRIORITY_INTERACTIVE,
                "bulk": pb.PRIORITY_BULK,
            }[self.priority],
        )


DEFAULTS = Options()


@dataclass(frozen=True, slots=True)
class Space:
    """Names the vectors of a reply. Never compare vectors of two spaces."""

    model: str
    version: int
    fingerprint: str
    dimensions: int

    @classmethod
    def of(cls, message: pb.Space) -> Space:
        return cls(message.model, message.version, message.fingerprint, message.dimensions)


@dataclass(frozen=True, slots=True)
class Timings:
    """The longest that any input of the call took in each stage, in seconds."""

    decode_s: float
    queue_s: float
    engine_s: float

    @classmethod
    def of(cls, message: pb.Timings) -> Timings:
        return cls(message.decode_us / 1e6, message.queue_us / 1e6, message.engine_us / 1e6)


@dataclass(frozen=True, slots=True)
class EmbedReply:
    """One result per input, in order: a unit vector, or why there is none."""

    space: Space
    results: tuple[Vectors | DiptychError, ...]
    tokens_dropped: tuple[int, ...]  # per input: tokens of a text that `truncate` cut off
    timings: Timings

    @property
    def vectors(self) -> Vectors:
        """[inputs, dimensions], one unit row per input.

        Raises:
            DiptychError: of the first input that has no vector.
        """
        return np.stack([vector_of(result) for result in self.results])


@dataclass(frozen=True, slots=True)
class StreamResult:
    """What became of one input of a stream."""

    id: str
    result: Vectors | DiptychError
    space: Space

    @property
    def vector(self) -> Vectors:
        return vector_of(self.result)


@dataclass(frozen=True, slots=True)
class Ranked:
    """The best candidates of one query, the best first."""

    values: npt.NDArray[np.float32]  # [K]
    candidates: tuple[int, ...]  # [K], indexes into the candidates or labels


@dataclass(frozen=True, slots=True)
class ScoreReply:
    """One result per query, in order: its scores, or why there are none."""

    space: Space
    measure: MeasureName  # the one used
    results: tuple[Ranked | DiptychError, ...]
    labels: tuple[str, ...]  # of the label set, where one was named
    timings: Timings

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """[queries, candidates]; pair by pair [queries, 1]; with `top_k` [queries, K].

        Raises:
            DiptychError: of the first query that has no scores.
        """
        return np.stack([ranked_of(result).values for result in self.results])


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server serves, and within which limits: the messages as they came."""

    models: tuple[pb.Model, ...]
    limits: pb.Limits


def embed_request(inputs: Sequence[Input], options: Options, *, half: bool) -> pb.EmbedRequest:
    return pb.EmbedRequest(
        options=options.message(),
        inputs=[to_input(item) for item in inputs],
        data_type=data_type(half),
    )


def score_request(
    queries: Sequence[Input],
    candidates: Sequence[Input],
    options: Options,
    *,
    label_set: str,
    templates: Sequence[str],
    measure: MeasureName,
    pairwise: bool,
    top_k: int,
) -> pb.ScoreRequest:
    name = "UNSPECIFIED" if measure == "default" else measure.upper()
    return pb.ScoreRequest(
        options=options.message(),
        queries=[to_input(item) for item in queries],
        candidates=[to_input(item) for item in candidates],
        label_set=label_set,
        templates=templates,
        measure=f"MEASURE_{name}",
        pairing=pb.PAIRING_PAIRWISE if pairwise else pb.PAIRING_ALL,
        top_k=top_k,
    )


def embed_reply(message: pb.EmbedResponse) -> EmbedReply:
    return EmbedReply(
        space=Space.of(message.space),
        results=tuple(embed_result(result, message.data_type) for result in message.results),
        tokens_dropped=tuple(result.tokens_dropped for result in message.results),
        timings=Timings.of(message.timings),
    )


def score_reply(message: pb.ScoreResponse) -> ScoreReply:
    measure: Any = pb.Measure.Name(message.measure).removeprefix("MEASURE_").lower()
    return ScoreReply(
        space=Space.of(message.space),
        measure=measure,
        results=tuple(_score_result(result) for result in message.results),
        labels=tuple(message.labels),
        timings=Timings.of(message.timings),
    )


def embed_result(message: pb.EmbedResult, kind: pb.DataType) -> Vectors | DiptychError:
    if message.HasField("error"):
        return to_error(message.error)
    return np.frombuffer(message.embedding, _DTYPES[kind])


def vector_of(result: Vectors | DiptychError) -> Vectors:
    if isinstance(result, DiptychError):
        raise result
    return result


def ranked_of(result: Ranked | DiptychError) -> Ranked:
    if isinstance(result, DiptychError):
        raise result
    return result


def data_type(half: bool) -> pb.DataType:
    return pb.DATA_TYPE_FLOAT16 if half else pb.DATA_TYPE_FLOAT32


def to_input(item: Input) -> pb.Input:
    if isinstance(item, bytes):
        return pb.Input(image=item)
    if isinstance(item, str):
        return pb.Input(text=item)
    if isinstance(item, np.ndarray):
        pixels = pb.Tensor(
            data_type=pb.DATA_TYPE_UINT8, shape=item.shape, data=_uint8(item).tobytes()
        )
        return pb.Input(pixels=pixels)
    return pb.Input(image=Path(item).read_bytes())


def as_dict(message: Message) -> dict[str, Any]:
    """A message by field name, every field included, for printing."""
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _uint8(item: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if item.dtype != np.uint8:
        raise TypeError(f"pixels must be uint8 [S, S, 3], not {item.dtype} {list(item.shape)}")
    return item


def _score_result(message: pb.ScoreResult) -> Ranked | DiptychError:
    if message.HasField("error"):
        return to_error(message.error)
    values = np.frombuffer(message.scores.values, "<f4")
    order = message.scores.candidates or range(len(values))
    return Ranked(values, tuple(order))
