"""What the machine does with no server at all: decoding, tokenizing and both towers, each alone.

    python -m bench.alone --repository DIR --model NAME

Prints one JSON object of seconds per input. Towers run one batch at a time with all threads, as
the embedded engine opens them; decoding and tokenizing run on one thread, and are counted as
shared out over all cores without loss: a ceiling that a real server can only come near.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.traffic import pictures, texts
from diptych import repository
from diptych.contract import ImageSpec, ModelSpec, Tower
from diptych.engines.base import EMBEDS, PIXELS
from diptych.engines.embedded import EmbeddedEngine
from diptych.preprocess.images import decode_image
from diptych.preprocess.text import TextTokenizer
from diptych.settings import cores
from diptych.text_calls import TextCalls

BATCHES = (1, 2, 4, 8, 16, 32, 64)
TEXT_BATCHES = (1, 8, 32, 64)
LENGTHS = (8, 16, 24, 32, 77)  # tokens; between them the ceiling is drawn straight

_SECONDS = 0.4  # for each figure
_LEAST = 3  # runs for each figure


def main() -> None:
    reader = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    reader.add_argument("--repository", type=Path, required=True)
    reader.add_argument("--model", required=True)
    options = reader.parse_args()
    files = repository.load(options.repository, options.model)
    print(json.dumps(asyncio.run(measured(files))))


async def measured(files: repository.ModelFiles) -> dict[str, Any]:
    """All figures: seconds per input, by what is done."""
    spec = files.spec
    engine = EmbeddedEngine(spec, files.graphs, threads=cores())
    tokenizer = TextTokenizer(files.tokenizer, spec.text)
    sample = texts()[:2000]
    tokens = [tokenizer.tokenize(text).tokens for text in sample]
    lengths = Counter(len(one) for one in tokens)
    measured_at = sorted({min(length, spec.text.context_length) for length in LENGTHS})
    try:
        return {
            "cores": cores(),
            "engine": engine.description,
            "tokenize": _each(lambda: [tokenizer.tokenize(t) for t in sample], len(sample)),
            **_decoding(spec.image),
            "image": await _image_tower(engine, spec.image, BATCHES),
            "text": {n: await _text_tower(engine, spec, n, TEXT_BATCHES) for n in measured_at},
            "lengths": {length: number / len(tokens) for length, number in lengths.items()},
        }
    finally:
        await engine.close()


def _decoding(spec: ImageSpec) -> dict[str, float]:
    small, large = pictures("image")[:16], pictures("large")[:4]

    def decode(encoded: list[bytes], *, exact: bool = False) -> Callable[[], object]:
        return lambda: [decode_image(one, spec, exact=exact) for one in encoded]

    return {
        "decode_image": _each(decode(small), len(small)),
        "decode_large": _each(decode(large), len(large)),
        "decode_large_exact": _each(decode(large, exact=True), len(large)),
    }


async def _image_tower(
    engine: EmbeddedEngine, spec: ImageSpec, batches: Iterable[int]
) -> dict[int, float]:
    drawn = np.random.default_rng(4)
    found = {}
    for rows in batches:
        pixels = drawn.integers(0, 256, (rows, spec.size, spec.size, 3), dtype=np.uint8)
        found[rows] = await _each_run(
            engine, Tower.IMAGE, {PIXELS: pixels}, EMBEDS[Tower.IMAGE], rows
        )
    return found


async def _text_tower(
    engine: EmbeddedEngine, spec: ModelSpec, length: int, batches: Iterable[int]
) -> dict[int, float]:
    found = {}
    for rows in batches:
        text = np.full(length, spec.text.pad_id, dtype=np.int64)
        text[0], text[-1] = spec.text.start_id or spec.text.end_id, spec.text.end_id
        call = TextCalls(spec, length_step=engine.length_step).call([text] * rows)
        found[rows] = await _each_run(engine, Tower.TEXT, call.inputs, call.output, rows)
    return found


async def _each_run(
    engine: EmbeddedEngine, tower: Tower, inputs: Mapping[str, Any], output: str, rows: int
) -> float:
    """Seconds per input: the median of runs."""
    taken: list[float] = []
    while len(taken) < _LEAST or sum(taken) < _SECONDS:
        began = time.perf_counter()
        await engine.run(tower, inputs, [output])
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:]) / rows  # the first one warms up


def _each(work: Callable[[], object], items: int) -> float:
    """Seconds per item on one thread: the median of runs."""
    taken: list[float] = []
    while len(taken) < _LEAST or sum(taken) < _SECONDS:
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:]) / items


if __name__ == "__main__":
    main()
