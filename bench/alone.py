"""What the machine does with no server at all: decoding, tokenizing and both towers, each alone.

    python -m bench.alone --repository DIR --model NAME

Prints one JSON object of seconds per input; then, for each line of kinds of input that it reads, a
second one of what these need, measured anew: a machine whose speed drifts is to be measured
beside the server, not minutes before. Towers run one batch at a time with all threads, as the
embedded engine opens them; decoding and tokenizing run on one thread, and are counted as shared
out over all cores without loss: a ceiling that a real server can only come near.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.traffic import Kind, pictures, texts
from diptych import repository
from diptych.contract import Tower
from diptych.engines.base import EMBEDS, PIXELS
from diptych.engines.embedded import EmbeddedEngine
from diptych.preprocess.images import decode_image
from diptych.preprocess.text import TextTokenizer
from diptych.settings import cores
from diptych.text_calls import TextCalls

BATCHES = (1, 2, 4, 8, 16, 32, 64)
TEXT_BATCHES = (1, 8, 32, 64)
LENGTHS = (8, 16, 24, 32, 77)  # tokens; between them the ceiling is drawn straight

_SECONDS, _ANEW_S = 0.4, 0.15  # for each figure
_LEAST = 3  # runs for each figure


def main() -> None:
    reader = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    reader.add_argument("--repository", type=Path, required=True)
    reader.add_argument("--model", required=True)
    options = reader.parse_args()
    asyncio.run(_answer(repository.load(options.repository, options.model)))


async def _answer(files: repository.ModelFiles) -> None:
    async with _opened(files) as machine:
        found = await machine.everything()
        print(json.dumps(found), flush=True)
        for line in sys.stdin:
            print(json.dumps(await machine.anew(line.split(), found)), flush=True)


@asynccontextmanager
async def _opened(files: repository.ModelFiles) -> AsyncIterator[_Machine]:
    engine = EmbeddedEngine(files.spec, files.graphs, threads=cores())
    try:
        yield _Machine(files, engine)
    finally:
        await engine.close()


class _Machine:
    """Measures; all figures are seconds per input, by what is done."""

    def __init__(self, files: repository.ModelFiles, engine: EmbeddedEngine) -> None:
        self._spec = files.spec
        self._engine = engine
        self._tokenizer = TextTokenizer(files.tokenizer, files.spec.text)
        self._texts = TextCalls(files.spec, length_step=engine.length_step)
        self._pictures: dict[Kind, list[bytes]] = {
            "image": pictures("image")[:16],
            "large": pictures("large")[:4],
        }
        longest = files.spec.text.context_length
        self._lengths = sorted({min(length, longest) for length in LENGTHS})

    async def everything(self) -> dict[str, Any]:
        tokenize, sample = self._tokenizer.tokenize, texts()[:2000]
        lengths = Counter(len(tokenize(text).tokens) for text in sample)
        return {
            "cores": cores(),
            "engine": self._engine.description,
            "tokenize": _each(lambda: [tokenize(text) for text in sample], len(sample)),
            "decode_image": self._decoding("image"),
            "decode_large": self._decoding("large"),
            "decode_large_exact": self._decoding("large", exact=True),
            "image": {rows: await self._images(rows) for rows in BATCHES},
            "text": {
                length: {rows: await self._text(length, rows) for rows in TEXT_BATCHES}
                for length in self._lengths
            },
            "lengths": {length: number / len(sample) for length, number in lengths.items()},
        }

    async def anew(self, kinds: Sequence[str], before: Mapping[str, Any]) -> dict[str, Any]:
        """What these kinds of input need, in the batch that was best."""
        found: dict[str, Any] = {}
        for kind in ("image", "large"):
            if kind in kinds:
                found[f"decode_{kind}"] = self._decoding(kind, seconds=_ANEW_S)
        if set(kinds) - {"text"}:
            best = _best(before["image"])
            found["image"] = {best: await self._images(best, _ANEW_S)}
        if "text" in kinds:
            found["text"] = {
                length: {best: await self._text(length, best, _ANEW_S)}
                for length, batches in before["text"].items()
                for best in [_best(batches)]
            }
        return found

    def _decoding(self, kind: Kind, *, exact: bool = False, seconds: float = _SECONDS) -> float:
        encoded, spec = self._pictures[kind], self._spec.image

        def decode() -> object:
            return [decode_image(one, spec, exact=exact) for one in encoded]

        return _each(decode, len(encoded), seconds)

    async def _images(self, rows: int, seconds: float = _SECONDS) -> float:
        size = self._spec.image.size
        drawn = np.random.default_rng(4)
        pixels = drawn.integers(0, 256, (rows, size, size, 3), dtype=np.uint8)
        run = partial(self._engine.run, Tower.IMAGE, {PIXELS: pixels}, [EMBEDS[Tower.IMAGE]])
        return await _each_run(run, rows, seconds)

    async def _text(self, length: int, rows: int, seconds: float = _SECONDS) -> float:
        spec = self._spec.text
        text = np.full(length, spec.pad_id, dtype=np.int64)
        text[0], text[-1] = spec.start_id or spec.end_id, spec.end_id
        call = self._texts.call([text] * rows)
        run = partial(self._engine.run, Tower.TEXT, call.inputs, [call.output])
        return await _each_run(run, rows, seconds)


def _best(batches: Mapping[int, float]) -> int:
    return min(batches, key=batches.__getitem__)


async def _each_run(
    run: Callable[[], Awaitable[object]], inputs: int, seconds: float = _SECONDS
) -> float:
    """Seconds per input: the median of runs."""
    taken: list[float] = []
    while len(taken) < _LEAST or sum(taken) < seconds:
        began = time.perf_counter()
        await run()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:]) / inputs  # the first one warms up


def _each(work: Callable[[], object], inputs: int, seconds: float = _SECONDS) -> float:
    """Seconds per input on one thread: the median of runs."""
    taken: list[float] = []
    while len(taken) < _LEAST or sum(taken) < seconds:
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:]) / inputs


if __name__ == "__main__":
    main()
