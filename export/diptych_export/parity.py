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

from diptych.contract import Tokens, Tower, canary_pixels, canary_tokens
from diptych.engines.base import EMBEDS, PACKED, PIXELS
from diptych.preprocess.images import decode_image
from diptych.preprocess.packing import packed
from diptych.preprocess.text import TextTokenizer, pad_tokens
from diptych.text_calls import inputs as text_inputs
from diptych_export import samples
from diptych_export.errors import ParityError
from diptych_export.sources.base import Array, Source

Precision: TypeAlias = Literal["fp32", "bf16", "fp16", "int8"]
Inputs: TypeAlias = dict[str, Any]

MIN_COSINE: dict[Precision, float] = {"fp32": 0.99999, "bf16": 0.999, "fp16": 0.999, "int8": 0.995}
AGREEMENT = "top1_agreement"
MIN_AGREEMENT = 0.99  # of int8: how often the best match is the source's too
TIE = 0.005  # cosines of the source this near are one: which of the two is first means nothing
MAX_BATCH = 64  # rows a call; what config.pbtxt allows

_BATCHES = (1, 2, MAX_BATCH)


class Gate:
    """What one source answers for every input, asked once; graphs are held against it."""

    def __init__(
        self,
        source: Source,
        tokenizer: Path,
        pictures: Sequence[bytes] = (),
        texts: Sequence[str] = (),
    ) -> None:
        """`pictures` and `texts` are compared besides those of `samples`."""
        files = [*samples.pictures(source.image), *pictures]
        strings = [*samples.texts(), *texts]
        self._text = source.text
        self._pixels = [decode_image(file, source.image, exif=False, exact=True) for file in files]
        reader = TextTokenizer(tokenizer, source.text)
        self._tokens = [reader.tokenize(text, truncate=True).tokens for text in strings]
        self._expected = {
            Tower.IMAGE: [source.reference.image(file) for file in files],
            Tower.TEXT: [source.reference.text(text, source.text_tower.layers) for text in strings],
        }
        self._canary = source.reference.canary(source.image, source.text)
        self._canary_inputs = {
            Tower.IMAGE: {PIXELS: canary_pixels(source.image)[None]},
            Tower.TEXT: self._text_inputs([canary_tokens(source.text)]),
        }

    def check(self, graphs: Mapping[Tower, Path], precision: Precision) -> dict[str, float]:
        """The lowest cosine of each output of each tower, over all inputs and batch sizes.

        Hidden states are compared position by position, padding left out. Of int8 also how often
        the best text of a picture and the best picture of a text are the source's.

        Raises:
            ParityError: one is below `MIN_COSINE` of `precision`, or below `MIN_AGREEMENT`.
        """
        counts = {tower: len(answers) for tower, answers in self._expected.items()}
        figures: dict[str, float] = {
            "images": counts[Tower.IMAGE],
            "texts": counts[Tower.TEXT],
        }
        vectors = {
            tower: self._check_tower(tower, graphs[tower], precision, figures) for tower in Tower
        }
        if precision == "int8":
            figures[AGREEMENT] = self._agreement(vectors)
        return figures

    def _check_tower(
        self, tower: Tower, graph: Path, precision: Precision, figures: dict[str, float]
    ) -> Array:
        """Add to `figures`; answer the vectors [N, D] of the largest batch."""
        session, expected = _session(graph), self._expected[tower]
        for batch in _BATCHES:
            vectors = []
            for rows in _groups(len(expected), batch):
                answer = _run(session, self._inputs(tower, rows))
                _compare(tower, answer, [(r, expected[r]) for r in rows], precision, figures)
                vectors.append(answer[EMBEDS[tower]])
        if PACKED in _outputs(session) and self._text.padding == "longest":
            self._check_packed(session, precision, figures)
        # Its engine proves itself by this input before it serves, so it has to pass as well.
        name, right = EMBEDS[tower], np.array(getattr(self._canary, tower), np.float32)
        answer = {name: _run(session, self._canary_inputs[tower])[name]}
        _compare(tower, answer, [("canary", {name: right})], precision, figures)
        return np.concatenate(vectors)[: len(expected)]

    def _check_packed(self, session: Any, precision: Precision, figures: dict[str, float]) -> None:
        """Every text among others in its row, in rows of many widths; add to `figures`."""
        expected = self._expected[Tower.TEXT]
        for batch in (2, 7, MAX_BATCH):
            for group in _groups(len(expected), batch):
                rows = packed([self._tokens[text] for text in group], self._text, step=1)
                answer = session.run([PACKED], text_inputs(self._text, rows.ids, rows.present))[0]
                found = answer[rows.rows, rows.slots]
                right = [(text, {PACKED: expected[text][EMBEDS[Tower.TEXT]]}) for text in group]
                _compare(Tower.TEXT, {PACKED: found}, right, precision, figures)

    def feeds(self, tower: Tower, batch: int) -> list[Inputs]:
        """Every input of a tower, in runs of `batch` rows."""
        groups = _groups(len(self._expected[tower]), batch)
        return [self._inputs(tower, rows) for rows in groups]

    def _inputs(self, tower: Tower, rows: Sequence[int]) -> Inputs:
        if tower is Tower.IMAGE:
            return {PIXELS: np.stack([self._pixels[row] for row in rows])}
        return self._text_inputs([self._tokens[row] for row in rows])

    def _text_inputs(self, tokens: Sequence[Tokens]) -> Inputs:
        return text_inputs(self._text, *pad_tokens(tokens, self._text))

    def _agreement(self, vectors: Mapping[Tower, Array]) -> float:
        right = {
            tower: np.stack([answer[EMBEDS[tower]] for answer in answers])
            for tower, answers in self._expected.items()
        }
        found = agreement(
            cosines(vectors[Tower.IMAGE], vectors[Tower.TEXT]),
            cosines(right[Tower.IMAGE], right[Tower.TEXT]),
        )
        if not found >= MIN_AGREEMENT:
            share = f"{found:.4f} of all best matches are the source library's"
            raise ParityError(AGREEMENT, f": {share}, at least {MIN_AGREEMENT} are needed")
        return found


def lowest_cosine(ours: Array, theirs: Array) -> float:
    """Of two vectors [D], or the lowest of [T, H] row by row. In float64, at most 1.

    Not a number where one of them is zero, or is none itself.
    """
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.minimum((a * b).sum(axis=-1) / lengths, 1.0).min())


def cosines(images: Array, texts: Array) -> Array:
    """[N, D] and [M, D] in, [N, M] out."""
    images, texts = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (images, texts))
    return images @ texts.T


def agreement(ours: Array, theirs: Array) -> float:
    """The share of rows and columns of [N, M] whose largest number in `ours` is it in `theirs`.

    Or is within `TIE` of it there.
    """
    same = []
    for mine, right in ((ours, theirs), (ours.T, theirs.T)):
        chosen = right[np.arange(len(right)), mine.argmax(axis=1)]
        same.append(chosen >= right.max(axis=1) - TIE)
    return float(np.concatenate(same).mean())


def _groups(count: int, batch: int) -> Iterator[list[int]]:
    """Rows in batches of exactly `batch`; the last one is filled up from the start."""
    for start in range(0, count, batch):
        yield [row % count for row in range(start, start + batch)]


def _compare(
    tower: Tower,
    answer: dict[str, Array],
    expected: Sequence[tuple[int | str, dict[str, Array]]],
    precision: Precision,
    figures: dict[str, float],
) -> None:
    least = MIN_COSINE[precision]
    for name, rows in answer.items():
        output = f"{tower}.{name}"
        for row, (number, right) in zip(rows, expected, strict=True):
            cosine = lowest_cosine(row[: len(right[name])], right[name])
            if not cosine >= least:  # a NaN fails as well
                problem = f"cosine {cosine:.6f} to the source library, at least {least} is needed"
                raise ParityError(output, f" of {tower} {number} at batch {len(rows)}: {problem}")
            figures[output] = min(cosine, figures.get(output, 1.0))


def _session(graph: Path) -> Any:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # of no use here
    return ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def _run(session: Any, inputs: Inputs) -> dict[str, Array]:
    names = [name for name in _outputs(session) if name != PACKED]  # which is compared apart
    return dict(zip(names, session.run(names, inputs), strict=True))


def _outputs(session: Any) -> list[str]:
    return [output.name for output in session.get_outputs()]
