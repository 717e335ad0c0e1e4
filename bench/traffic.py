"""What callers send: the cases of the benchmark, as requests ready for the wire.

No request repeats an input while an earlier one with it may still be under way, but for the
cases that are there to repeat: a server that computes each content once would be flattered.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, cycle
from pathlib import Path
from random import Random
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image

from diptych.v1 import embedding_pb2 as pb

LABELS = 1000  # of the label set
LABEL_SET = "thousand"
LABEL_SET_VERSION = "1"

Kind: TypeAlias = Literal["image", "large", "pixels", "text"]

_SERVICE = "/diptych.v1.EmbeddingService"
_WORDS = (  # noqa: SIM905 (prose reads better so)
    "a the on under beside with two three old small bright dark wooden red green blue yellow "
    "white black street market river bridge mountain forest window door table chair lamp bicycle "
    "train boat dog cat horse bird child woman man crowd rain snow sunlight shadow morning "
    "evening photo painting drawing close wide view of near far quiet busy empty full broken"
).split()
_MARK = b"\x00\xffDIPTYCH"  # stands where each request has a number of its own
_PICTURES = {"image": 64, "large": 8, "pixels": 64}
_TEXTS = 20_000


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of call."""

    name: str
    kinds: tuple[Kind, ...]  # of its calls, in turn
    inputs: int = 1  # new ones in a call
    candidates: int = 0  # inline texts that repeat from call to call
    label_set: bool = False
    repeats: bool = False  # the same few inputs over and over: what a cache is for

    @property
    def method(self) -> str:
        score = self.candidates or self.label_set
        return f"{_SERVICE}/Score" if score else f"{_SERVICE}/Embed"


CASES = {
    case.name: case
    for case in (
        Case("image", ("image",)),
        Case("image_large", ("large",)),
        Case("pixels", ("pixels",)),
        Case("text", ("text",)),
        Case("image_x32", ("image",), inputs=32),
        Case("image_x64", ("image",), inputs=64),
        Case("text_x32", ("text",), inputs=32),
        Case("text_x64", ("text",), inputs=64),
        Case("mixed", ("image", "text")),
        Case("score_20", ("image",), candidates=20),
        Case("score_1000", ("image",), label_set=True),
        Case("cached_text", ("text",), repeats=True),
        Case("cached_image", ("image",), repeats=True),
    )
}


def texts() -> list[str]:
    """Unlike texts of 5 to 25 words, the same on every machine."""
    rng = Random(1)
    found = {" ".join(rng.choices(_WORDS, k=rng.randint(5, 25))) for _ in range(_TEXTS)}
    return sorted(found, key=lambda text: rng.random())


def write_labels(folder: Path) -> Path:
    """The label set's file, in a folder of its own below `folder`; returns that."""
    labels = folder / "labels"
    labels.mkdir(parents=True, exist_ok=True)
    content = {"name": LABEL_SET, "version": LABEL_SET_VERSION, "labels": texts()[:LABELS]}
    (labels / f"{LABEL_SET}.yaml").write_text(json.dumps(content))
    return labels


def pictures(kind: Kind, side: int = 224) -> list[bytes]:
    """Encoded pictures of one kind, or the bytes of decoded ones: detail as photographs have."""
    rng = np.random.default_rng(2)
    width, height = {"image": (640, 480), "large": (4000, 3000), "pixels": (side, side)}[kind]
    return [_picture(rng, width, height, kind) for _ in range(_PICTURES[kind])]


def requests(case: Case, side: int) -> Iterator[bytes]:
    """Serialized requests without end. `side` is what the model's pixels measure."""
    kinds = [_bodies(case, kind, side) for kind in case.kinds]
    numbers = count(time.time_ns())  # no picture is one that an earlier run has left in a cache
    for body in (next(bodies) for bodies in cycle(kinds)):
        number = 0 if case.repeats else next(numbers)
        yield number.to_bytes(len(_MARK)).join(body)


def _bodies(case: Case, kind: Kind, side: int) -> Iterator[list[bytes]]:
    """Requests of one kind, cut where each has a number of its own."""
    if kind == "text":
        inputs = [pb.Input(text=text) for text in texts()]
    else:
        inputs = [_input(kind, data + _MARK, side) for data in pictures(kind, side)]
    if case.repeats:
        inputs = inputs[:16]
    while len(inputs) < case.inputs:
        inputs = inputs * 2
    calls = len(inputs) // case.inputs
    parts = [inputs[call * case.inputs : (call + 1) * case.inputs] for call in range(calls)]
    return cycle([_request(case, part).split(_MARK) for part in parts])


def _input(kind: Kind, data: bytes, side: int) -> pb.Input:
    if kind != "pixels":
        return pb.Input(image=data)
    # The number replaces the last pixels, so that the size stays right.
    data = data[: -2 * len(_MARK)] + _MARK
    return pb.Input(
        pixels=pb.Tensor(data_type=pb.DATA_TYPE_UINT8, shape=[side, side, 3], data=data)
    )


def _request(case: Case, inputs: list[pb.Input]) -> bytes:
    if case.label_set:
        return pb.ScoreRequest(queries=inputs, label_set=LABEL_SET).SerializeToString()
    if case.candidates:
        candidates = [pb.Input(text=text) for text in texts()[: case.candidates]]
        return pb.ScoreRequest(queries=inputs, candidates=candidates).SerializeToString()
    return pb.EmbedRequest(inputs=inputs).SerializeToString()


def _picture(rng: np.random.Generator, width: int, height: int, kind: Kind) -> bytes:
    """Noise at several scales, the coarser the stronger, as in natural pictures."""
    picture = np.zeros((height, width, 3))
    for scale in (4, 16, 64, 256):
        shape = (max(2, height // scale), max(2, width // scale), 3)
        coarse = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
        weight = scale**0.5
        picture += weight * np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    picture /= picture.max() / 255
    image = Image.fromarray(picture.astype(np.uint8))
    if kind == "pixels":
        return image.tobytes()
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()
