"""A published version, run as the gateway runs it: same preprocessing, same engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import numpy as np

from diptych.contract import Matrix, Pixels, Tower
from diptych.engines.base import EMBEDS, MASK, PIXELS, TOKENS, Array, Engine
from diptych.engines.embedded import EmbeddedEngine
from diptych.preprocess.images import decode_image
from diptych.preprocess.text import TextTokenizer, pad_tokens
from diptych.repository import ModelFiles
from diptych.scoring import unit
from diptych.settings import cores

Item = TypeVar("Item")

_BATCH = 64  # inputs an engine call


class Inference:
    """One version of one model, for whoever has all inputs at hand."""

    def __init__(self, files: ModelFiles, engine: Engine) -> None:
        self.spec = files.spec
        self.engine = engine
        self._tokenizer = TextTokenizer(files.tokenizer, files.spec.text)

    async def images(self, encoded: Sequence[bytes]) -> Matrix:
        """Unit vectors [N, D] of N encoded images.

        Raises:
            BadInput: one cannot be read.
        """
        return await self.pixels([decode_image(file, self.spec.image) for file in encoded])

    async def pixels(self, pixels: Sequence[Pixels]) -> Matrix:
        """Unit vectors [N, D] of N decoded images."""
        stacks = [{PIXELS: np.stack(part)} for part in _parts(pixels)]
        return await self._run(Tower.IMAGE, stacks)

    async def texts(self, texts: Sequence[str]) -> Matrix:
        """Unit vectors [N, D] of N texts, those over-long cut."""
        tokens = [self._tokenizer.tokenize(text, truncate=True).tokens for text in texts]
        stacks = []
        for part in _parts(tokens):
            ids, mask = pad_tokens(part, self.spec.text)
            stacks.append(
                {TOKENS: ids, MASK: mask} if self.spec.text.attention_mask else {TOKENS: ids}
            )
        return await self._run(Tower.TEXT, stacks)

    async def _run(self, tower: Tower, stacks: list[dict[str, Array]]) -> Matrix:
        name = EMBEDS[tower]
        if not stacks:
            return np.zeros((0, self.spec.embed_dim), np.float32)
        answers = [await self.engine.run(tower, inputs, [name]) for inputs in stacks]
        return unit(np.concatenate([answer[name] for answer in answers]))


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
