"""The whole path of one input: bytes or text, pixels or tokens, batch, vector.

The gateway calls it for a request, the offline job calls it for a shard.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from diptych.batching import Batcher, BatchLimits
from diptych.contract import Matrix, ModelSpec, Pixels, Priority, Tokens, Tower, Vector
from diptych.engines.base import EMBEDS, MASK, PIXELS, TOKENS, Engine
from diptych.errors import BadInput, DeadlinePassed, EngineFailed, one_reason
from diptych.metrics import Metrics
from diptych.preprocess.images import ImageLimits, check_pixels, decode_image
from diptych.preprocess.text import TextTokenizer, Tokenized, pad_tokens
from diptych.scoring import shorten, unit

# An encoded image, a text, or ready pixels [S, S, 3].
Input: TypeAlias = bytes | str | npt.NDArray[np.uint8]

Result = TypeVar("Result")

_INLINE_CHARACTERS = 1000  # shorter texts tokenize faster than a thread is woken


@dataclass(frozen=True, slots=True)
class Reading:
    """How one call wants its inputs read, and when."""

    truncate: bool = False  # cut over-long texts, rather than refuse them
    exif: bool = True  # turn images upright as their EXIF says
    dimensions: int = 0  # floats to keep of each vector; 0: all
    priority: Priority = Priority.INTERACTIVE
    deadline: float = math.inf  # of the event loop's clock


@dataclass(frozen=True, slots=True)
class Embedded:
    """One input's vector, and what it took."""

    vector: Vector  # [D] or [dimensions], unit length
    tokens: int = 0  # of a text, as embedded
    tokens_dropped: int = 0  # of a text, when cut
    decode_s: float = 0.0
    queue_s: float = 0.0
    engine_s: float = 0.0


# What becomes of one input of many.
Outcome: TypeAlias = Embedded | BadInput | EngineFailed


class Encoder:
    """One model: turns inputs into unit vectors, in batches across all callers."""

    def __init__(
        self,
        spec: ModelSpec,
        tokenizer: TextTokenizer,
        engine: Engine,
        decoders: Executor,
        *,
        image_limits: ImageLimits,
        max_batch: int,
        metrics: Metrics,
    ) -> None:
        self.spec = spec
        self._metrics = metrics
        self._tokenizer = tokenizer
        self._engine = engine
        self._decoders = decoders
        self._image_limits = image_limits
        self._images: Batcher[Pixels, Vector] = Batcher(
            self._run_images, BatchLimits(max_batch), in_flight=engine.in_flight, digest=_digest
        )
        self._texts: Batcher[Tokens, Vector] = Batcher(
            self._run_texts,
            BatchLimits(max_batch, max_cost=max_batch * spec.text.context_length),
            in_flight=engine.in_flight,
            digest=_digest,
            cost=len,
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Batches are formed and run within this."""
        tasks = [asyncio.create_task(b.serve()) for b in (self._images, self._texts)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def embed(self, item: Input, reading: Reading) -> Embedded:
        """One input to its unit vector.

        Raises:
            BadInput: of field `image`, `text` or `pixels`, when it cannot be read.
            DeadlinePassed: before its work began.
            EngineError: the engine is away, or failed this input's batch.
        """
        started = time.perf_counter()
        if isinstance(item, str):
            tokenized = await self._tokenize(item, reading)
            decode_s = time.perf_counter() - started
            answer = await self._texts.submit(
                tokenized.tokens, priority=reading.priority, deadline=reading.deadline
            )
            counts = len(tokenized.tokens), tokenized.dropped
        else:
            pixels = await self._pixels(item, reading)
            decode_s = time.perf_counter() - started
            answer = await self._images.submit(
                pixels, priority=reading.priority, deadline=reading.deadline
            )
            counts = 0, 0
        self._metrics.stages(decode_s, answer.queue_s, answer.engine_s)
        vector = shorten(answer.result, reading.dimensions or self.spec.embed_dim)
        return Embedded(vector, *counts, decode_s, answer.queue_s, answer.engine_s)

    async def embed_all(
        self, items: Sequence[Input | BadInput], reading: Reading, places: Sequence[str]
    ) -> list[Outcome]:
        """Every input to its unit vector, or to why it has none; its neighbours are left alone.

        An input may have been found bad before; it stays so, in its place.

        `places` names each input in error messages: a bad image is of field `<place>.image`.

        Raises:
            DiptychError: of any other kind, which ends the whole call.
        """
        with one_reason():
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self.embed_or_say_why(item, reading, place))
                    for item, place in zip(items, places, strict=True)
                ]
        return [task.result() for task in tasks]

    async def embed_or_say_why(
        self, item: Input | BadInput, reading: Reading, place: str
    ) -> Outcome:
        """As `embed`, but what concerns this input alone is returned, not raised."""
        try:
            if isinstance(item, BadInput):
                raise item
            return await self.embed(item, reading)
        except BadInput as exc:
            return exc.within(place)
        except EngineFailed as exc:
            return exc

    async def _pixels(self, item: bytes | npt.NDArray[np.uint8], reading: Reading) -> Pixels:
        if not isinstance(item, bytes):
            return check_pixels(item, self.spec.image)
        decode = partial(decode_image, item, self.spec.image, self._image_limits, exif=reading.exif)
        return await self._in_time(decode, reading)

    async def _tokenize(self, text: str, reading: Reading) -> Tokenized:
        tokenize = partial(self._tokenizer.tokenize, text, truncate=reading.truncate)
        if len(text) <= _INLINE_CHARACTERS:
            return tokenize()
        return await self._in_time(tokenize, reading)

    async def _in_time(self, work: Callable[[], Result], reading: Reading) -> Result:
        """Run `work` on a decoder thread, unless the deadline passes while it waits for one."""
        loop = asyncio.get_running_loop()

        def unless_late() -> Result:
            if loop.time() >= reading.deadline:
                raise DeadlinePassed("the deadline passed before the input was read")
            return work()

        return await loop.run_in_executor(self._decoders, unless_late)

    async def _run_images(self, batch: list[Pixels]) -> Matrix:
        return await self._run(Tower.IMAGE, {PIXELS: np.stack(batch)})

    async def _run_texts(self, batch: list[Tokens]) -> Matrix:
        tokens, mask = pad_tokens(batch, self.spec.text)
        inputs = {TOKENS: tokens, MASK: mask} if self.spec.text.attention_mask else {TOKENS: tokens}
        return await self._run(Tower.TEXT, inputs)

    async def _run(self, tower: Tower, inputs: dict[str, npt.NDArray[Any]]) -> Matrix:
        name = EMBEDS[tower]
        self._metrics.batch_inputs.labels(tower).observe(len(next(iter(inputs.values()))))
        answer = await self._engine.run(tower, inputs, [name])
        return unit(answer[name])


def _digest(item: npt.NDArray[Any]) -> bytes:
    return hashlib.sha256(item.data).digest()
