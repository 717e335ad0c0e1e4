"""The gate: exported graphs answer as their source library does, or are not published.

Both sides start from the same encoded images and the same strings: ours through the serving
side's preprocessing and ONNX Runtime, theirs through their own processor and model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import onnxruntime as ort

from diptych.contract import ImageSpec, TextSpec, Tower
from diptych.engines.base import MASK, PIXELS, TOKENS
from diptych.preprocess.images import decode_image
from diptych.preprocess.text import TextTokenizer, pad_tokens
from diptych_export import samples
from diptych_export.errors import ParityError
from diptych_export.sources.base import Array, Reference

Precision: TypeAlias = Literal["fp32", "bf16", "fp16", "int8"]
Inputs: TypeAlias = dict[str, Any]

MIN_COSINE: dict[Precision, float] = {"fp32": 0.99999, "bf16": 0.999, "fp16": 0.999, "int8": 0.995}
MAX_BATCH = 64  # rows a call; what config.pbtxt allows

_BATCHES = (1, 2, MAX_BATCH)


def check(
    graphs: Mapping[Tower, Path],
    tokenizer: Path,
    image: ImageSpec,
    text: TextSpec,
    reference: Reference,
    precision: Precision = "fp32",
) -> dict[str, float]:
    """The lowest cosine of each output of each tower, over all inputs and batch sizes.

    Hidden states are compared position by position, padding left out.

    Raises:
        ParityError: one is below `MIN_COSINE` of `precision`.
    """
    files, texts = samples.pictures(image), samples.texts()
    figures: dict[str, float] = {"images": len(files), "texts": len(texts)}
    expected = [reference.image(file) for file in files]
    pixels = [decode_image(file, image, exif=False, exact=True) for file in files]
    session = _session(graphs[Tower.IMAGE])
    for batch in _BATCHES:
        for rows in _groups(len(files), batch):
            answer = _run(session, {PIXELS: np.stack([pixels[row] for row in rows])})
            _compare(Tower.IMAGE, answer, [(r, expected[r]) for r in rows], precision, figures)
    _check_texts(graphs[Tower.TEXT], tokenizer, text, reference, texts, precision, figures)
    return figures


def _check_texts(
    graph: Path,
    tokenizer: Path,
    spec: TextSpec,
    reference: Reference,
    texts: Sequence[str],
    precision: Precision,
    figures: dict[str, float],
) -> None:
    reader = TextTokenizer(tokenizer, spec)
    tokens = [reader.tokenize(text, truncate=True).tokens for text in texts]
    expected = [reference.text(text) for text in texts]
    session = _session(graph)
    for batch in _BATCHES:
        for rows in _groups(len(texts), batch):
            ids, mask = pad_tokens([tokens[row] for row in rows], spec)
            inputs: Inputs = {TOKENS: ids, MASK: mask} if spec.attention_mask else {TOKENS: ids}
            answer = _run(session, inputs)
            _compare(Tower.TEXT, answer, [(r, expected[r]) for r in rows], precision, figures)


def _groups(count: int, batch: int) -> Iterator[list[int]]:
    """Rows in batches of exactly `batch`; the last one is filled up from the start."""
    for start in range(0, count, batch):
        yield [row % count for row in range(start, start + batch)]


def _compare(
    tower: Tower,
    answer: dict[str, Array],
    expected: Sequence[tuple[int, dict[str, Array]]],
    precision: Precision,
    figures: dict[str, float],
) -> None:
    least = MIN_COSINE[precision]
    for name, rows in answer.items():
        output = f"{tower}.{name}"
        for row, (number, right) in zip(rows, expected, strict=True):
            cosine = lowest_cosine(row[: len(right[name])], right[name])
            if not cosine >= least:  # a NaN fails as well
                raise ParityError(output, f"{tower} {number}", len(rows), cosine, least)
            figures[output] = min(cosine, figures.get(output, 1.0))


def lowest_cosine(ours: Array, theirs: Array) -> float:
    """Of two vectors [D], or the lowest of [T, H] row by row. In float64, at most 1."""
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(np.minimum((a * b).sum(axis=-1) / lengths, 1.0).min())


def _session(graph: Path) -> Any:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # of no use here
    return ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def _run(session: Any, inputs: Inputs) -> dict[str, Array]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))
