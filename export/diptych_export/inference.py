"""A published version, run as the gateway runs it: same preprocessing, same engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import numpy as np

from diptych.contract import Matrix, Pixels, Tower
from diptych.engines.base import EMBEDS, PIXELS, Engine
from diptych.engines.embedded import EmbeddedEngine
from diptych.preprocess.images import decode_image
from diptych.preprocess.text import TextTokenizer
from diptych.repository import ModelFiles
from diptych.scoring import unit
from diptych.settings import cores
from diptych.text_calls import TextCalls

Item = TypeVar("Item")

_BATCH = 64  # inputs an engine call


class Inference:
    """One version of one model, for whoever has all inputs at hand."""

    def __init__(self, files: ModelFiles, engine: Engine) -> None:
        self.spec = files.spec
        self.engine = engine
        self._tokenizer = TextTokenizer(files.tokenizer, files.spec.text)
        self._text_calls = TextCalls.on(engine, files.spec)

    async def images(self, encoded: Sequence[bytes]) -> Matrix:
        """Unit vectors [N, D] of N encoded images.

        Raises:
            BadInput: one cannot be read.
        """
        return await self.pixels([decode_image(file, self.spec.image) for file in encoded])

    async def pixels(self, pixels: Sequence[Pixels]) -> Matrix:
        """Unit vectors [N, D] of N decoded images."""
        name = EMBEDS[Tower.IMAGE]
        stacks = [{PIXELS: np.stack(part)} for part in _parts(pixels)]
        answers = [await self.engine.run(Tower.IMAGE, inputs, [name]) for inputs in stacks]
        return self._units([answer[name] for answer in answers])

    async def texts(self, texts: Sequence[str]) -> Matrix:
        """Unit vectors [N, D] of N texts, those over-long cut."""
        tokens = [self._tokenizer.tokenize(text, truncate=True).tokens for text in texts]
        found = []
        for part in _parts(tokens):
            call = self._text_calls.call(part)
            found.append(call.embeds(await self.engine.run(Tower.TEXT, call.inputs, [call.output])))
        return self._units(found)

    def _units(self, parts: list[Matrix]) -> Matrix:
        return unit(np.concatenate([np.zeros((0, self.spec.embed_dim), np.float32), *parts]))


@asynccontextmanager
async def opened(files: ModelFiles) -> AsyncIterator[Inference]:
    """An `Inference` on the embedded engine, as `diptych serve` opens it by default."""
    engine = await asyncio.to_thread(EmbeddedEngine, files.spec, files.graphs, threads=cores())
    try:
        yield Inference(files, engine)
    finally:
        await engine.close()


def _parts(items: Sequence[Item]) -> list[Sequence[Item]]:
    return [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]
