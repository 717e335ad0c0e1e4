"""The whole path of one input: bytes or text, cache, pixels or tokens, batch, vector.

The gateway calls it for a request, the offline job calls it for a shard.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from diptych.cache import Cache
from diptych.contract import ModelSpec, Pixels, Priority, Tower, Vector
from diptych.decoding import Decoders
from diptych.errors import BadInput, EngineFailed, Overloaded, one_reason
from diptych.metrics import Metrics
from diptych.pace import SLACK
from diptych.preprocess.images import ImageLimits, check_pixels, decode_image
from diptych.preprocess.text import TextTokenizer, Tokenized
from diptych.scoring import shorten
from diptych.towers import Towers
from diptych.tracing import SPAN

# An encoded image, a text, or ready pixels [S, S, 3].
Input: TypeAlias = bytes | str | npt.NDArray[np.uint8]

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


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """Bytes kept of each kind of result; 0 keeps none."""

    texts_bytes: int
    images_bytes: int


class Encoder:
    """One version of one model: turns inputs into unit vectors, each content only once."""

    def __init__(
        self,
        spec: ModelSpec,
        tokenizer: TextTokenizer,
        towers: Towers,
        decoders: Decoders,
        *,
        image_limits: ImageLimits,
        exact_images: bool,
        cache_limits: CacheLimits,
        metrics: Metrics,
    ) -> None:
        self.spec = spec
        self._tokenizer = tokenizer
        self._towers = towers
        self._decoders = decoders
        self._decode = partial(
            decode_image, spec=spec.image, limits=image_limits, exact=exact_images
        )
        self._metrics = metrics
        # One pair of caches per space: this object is made anew for every version.
        self._texts: Cache[Embedded] = Cache(cache_limits.texts_bytes, _kept_bytes)
        self._images: Cache[Embedded] = Cache(cache_limits.images_bytes, _kept_bytes)
        self._inside = {(tower, priority): 0 for tower in Tower for priority in Priority}

    async def embed(self, item: Input, reading: Reading) -> Embedded:
        """One input to its unit vector.

        Raises:
            BadInput: of field `image`, `text` or `pixels`, when it cannot be read.
            Overloaded: at once, when so much is ahead of it that its deadline would pass.
            DeadlinePassed: before its work began.
            EngineError: the engine is away, or failed this input's batch.
        """
        cache = self._texts if isinstance(item, str) else self._images
        is_hit = True

        def compute() -> asyncio.Task[Embedded]:
            nonlocal is_hit
            is_hit = False
            return self._begin(item, reading)

        found = await cache.get(_key(item, reading), reading.priority, compute)
        self._metrics.cached("text" if isinstance(item, str) else "image", is_hit=is_hit)
        if is_hit:
            found = replace(found, decode_s=0.0, queue_s=0.0, engine_s=0.0)
        if reading.dimensions in (0, self.spec.embed_dim):
            return found
        return replace(found, vector=shorten(found.vector, reading.dimensions))

    def waiting(self, tower: Tower) -> int:
        """Inputs that wait for a batch of this tower."""
        return self._towers.waiting(tower)

    def kept_bytes(self, tower: Tower) -> int:
        """Bytes of the tower's vectors that are kept by content."""
        return (self._images if tower is Tower.IMAGE else self._texts).bytes

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """Within this, a call's vectors are compared."""
        began = time.perf_counter()
        yield
        self._tell(began, {"score": time.perf_counter() - began})

    async def embed_all(
        self, items: Sequence[Input | BadInput], reading: Reading, places: Sequence[str]
    ) -> list[Outcome]:
        """Every input to its unit vector, or to why it has none; its neighbours are left alone.

        An input may have been found bad before; it stays so, in its place.

        `places` names each input in error messages: a bad image is of field `<place>.image`.

        Raises:
            DiptychError: of any other kind, which ends the whole call.
        """
        if len(items) == 1:  # most calls: no task of its own
            return [await self.embed_or_say_why(items[0], reading, places[0])]
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
            self._metrics.rejected("input", f"bad_{_kind(item)}")
            return exc.within(place)
        except EngineFailed as exc:
            self._metrics.rejected("input", "engine_failed")
            return exc

    def _begin(self, item: Input, reading: Reading) -> asyncio.Task[Embedded]:
        """Count one input in and compute it, or refuse it before there is any work of it."""
        tower = Tower.TEXT if isinstance(item, str) else Tower.IMAGE
        if self.spec.absent is tower:
            problem = f"model {self.spec.name!r} is a lone encoder: it has no {tower} tower"
            raise BadInput.at(_kind(item), problem)
        self._check_time(tower, reading)
        self._inside[tower, reading.priority] += 1
        task = asyncio.get_running_loop().create_task(self._compute(item, reading))
        task.add_done_callback(lambda _: self._leave(tower, reading.priority))
        return task

    def _leave(self, tower: Tower, priority: Priority) -> None:
        self._inside[tower, priority] -= 1

    async def _compute(self, item: Input, reading: Reading) -> Embedded:
        """The whole vector, whatever `reading.dimensions` says."""
        started = time.perf_counter()
        priority, deadline = reading.priority, reading.deadline
        counts = 0, 0
        if isinstance(item, str):
            tokenized = await self._tokenize(item, reading)
            counts = len(tokenized.tokens), tokenized.dropped
            decode_s = time.perf_counter() - started
            answer = await self._towers.embed_text(
                tokenized.tokens, priority=priority, deadline=deadline
            )
        else:
            pixels = await self._pixels(item, reading)
            decode_s = time.perf_counter() - started
            answer = await self._towers.embed_image(pixels, priority=priority, deadline=deadline)
        reading_stage = "tokenize" if isinstance(item, str) else "decode"
        spent = {reading_stage: decode_s, "queue": answer.queue_s, "engine": answer.engine_s}
        self._tell(started, spent)
        return Embedded(answer.result, *counts, decode_s, answer.queue_s, answer.engine_s)

    def _tell(self, began: float, spent: dict[str, float]) -> None:
        """Of stages that followed each other."""
        span = SPAN.get()
        for stage, duration_s in spent.items():
            self._metrics.spent(stage, duration_s)
            if span is not None:
                span.stage(stage, began, began + duration_s)
                began += duration_s

    def _check_time(self, tower: Tower, reading: Reading) -> None:
        """Refuse what could only be late.

        How long one input would take is what is ahead of it and its own call, at the pace of late.
        """
        ahead = self._inside[tower, Priority.INTERACTIVE]
        if reading.priority is Priority.BULK:
            ahead += self._inside[tower, Priority.BULK]
        wait_s = self._towers.answered_s(tower, ahead)
        if tower is Tower.IMAGE:
            wait_s = max(wait_s, self._decoders.expected_s(ahead))
        left_s = reading.deadline - asyncio.get_running_loop().time()
        if SLACK * wait_s > left_s:
            raise Overloaded(
                f"{ahead} inputs are ahead: an answer would take about {wait_s:.2f} s; "
                f"the deadline is in {max(left_s, 0):.2f} s",
                "no_time",
            )

    async def _pixels(self, item: bytes | npt.NDArray[np.uint8], reading: Reading) -> Pixels:
        if not isinstance(item, bytes):
            return check_pixels(item, self.spec.image)
        decode = partial(self._decode, item, exif=reading.exif)
        return await self._decoders.run(
            decode, priority=reading.priority, deadline=reading.deadline
        )

    async def _tokenize(self, text: str, reading: Reading) -> Tokenized:
        tokenize = partial(self._tokenizer.tokenize, text, truncate=reading.truncate)
        if len(text) <= _INLINE_CHARACTERS:
            return tokenize()
        return await self._decoders.run(
            tokenize, priority=reading.priority, deadline=reading.deadline
        )


def _kind(item: Input | BadInput) -> str:
    if isinstance(item, BadInput):
        return "input"
    if isinstance(item, str):
        return "text"
    return "image" if isinstance(item, bytes) else "pixels"


def _key(item: Input, reading: Reading) -> tuple[str, bool, bytes]:
    """What the whole vector depends on, within one space: the kind, the content, how it is read."""
    if isinstance(item, str):
        return "text", reading.truncate, hashlib.sha256(item.encode(errors="replace")).digest()
    if isinstance(item, bytes):
        return "image", reading.exif, hashlib.sha256(item).digest()
    shape = str((item.dtype, item.shape)).encode()
    return "pixels", True, hashlib.sha256(shape + item.tobytes()).digest()


def _kept_bytes(embedded: Embedded) -> int:
    return embedded.vector.nbytes + 400  # the objects around it, measured with sys.getsizeof
