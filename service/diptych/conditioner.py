"""One model's part in conditioning: prompts to chunks, chunks and pictures to hidden states."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from diptych.batching import Answer
from diptych.contract import ModelSpec, Pixels, Tower
from diptych.decoding import Decoders
from diptych.encoder import Reading
from diptych.engines.base import MASK, PIXELS, TOKENS, Array
from diptych.errors import BadInput, one_reason
from diptych.preprocess.images import ImageLimits, check_pixels, decode_image
from diptych.preprocess.text import TextTokenizer
from diptych.profiles import Encoder
from diptych.prompts import Ids, Mask, PromptReader, PromptTokens
from diptych.states import Outputs, Row, States

_INLINE_CHARACTERS = 1000  # shorter texts tokenize faster than a thread is woken


@dataclass(frozen=True, slots=True)
class How:
    """How a call wants its prompts read."""

    is_weighted: bool
    refuse: bool  # what is longer than `most_chunks`
    most_chunks: int


class Conditioner:
    """One version of one model, for image generators."""

    def __init__(
        self,
        states: States,
        tokenizer: TextTokenizer,
        decoders: Decoders,
        *,
        image_limits: ImageLimits,
        zero_image: dict[str, Array] | None,
    ) -> None:
        """`zero_image`: the image tower's outputs for pixel values that are zero, by name."""
        self.states = states
        self.zero_image = zero_image
        self._tokenizer = tokenizer
        self._decoders = decoders
        self._decode = partial(
            decode_image, spec=states.spec.image, limits=image_limits, exact=True
        )

    @property
    def spec(self) -> ModelSpec:
        return self.states.spec

    def reader(self, encoder: Encoder) -> PromptReader:
        """What reads prompts as a profile's encoder has them read."""
        spec = self.spec.text
        pads = {"model": spec.pad_id, "end": spec.end_id}
        pad_id = pads[encoder.pad] if isinstance(encoder.pad, str) else encoder.pad
        return PromptReader(self._tokenizer, spec, pad_id=pad_id, pad_text=encoder.pad_text)

    async def read(
        self, reader: PromptReader, prompt: str, how: How, reading: Reading
    ) -> PromptTokens:
        """One prompt's ids.

        Raises:
            BadInput: at `text`, as `PromptReader.read`.
            DeadlinePassed: before its turn came.
        """
        read = partial(
            reader.read,
            prompt,
            is_weighted=how.is_weighted,
            room=how.most_chunks * reader.room,
            refuse=how.refuse,
        )
        if len(prompt) <= _INLINE_CHARACTERS:
            return read()
        return await self._decoders.run(read, priority=reading.priority, deadline=reading.deadline)

    async def texts(
        self, ids: Ids, mask: Mask, outputs: Sequence[str], reading: Reading, *, masked: bool
    ) -> list[Answer[Outputs]]:
        """The outputs of every chunk; of a tower that takes a mask, all ones unless `masked`."""
        rows = []
        for own, seen in zip(ids, mask, strict=True):
            inputs: list[tuple[str, Array]] = [(TOKENS, own)]
            if self.spec.text.attention_mask:
                heeded = seen if masked else np.ones_like(seen)
                inputs.append((MASK, heeded.astype(np.int64)))
            rows.append(Row(tuple(inputs), tuple(sorted(outputs))))
        return await self._all(Tower.TEXT, rows, reading)

    async def images(
        self,
        items: Sequence[bytes | npt.NDArray[np.uint8]],
        outputs: Sequence[str],
        reading: Reading,
        places: Sequence[str],
    ) -> list[Answer[Outputs]]:
        """The outputs of every picture.

        Raises:
            BadInput: at `<place>.image` or `<place>.pixels`, of those that cannot be read.
        """
        with one_reason():
            async with asyncio.TaskGroup() as group:
                reads = [
                    group.create_task(self._pixels(item, reading, place))
                    for item, place in zip(items, places, strict=True)
                ]
        rows = [Row(((PIXELS, read.result()),), tuple(sorted(outputs))) for read in reads]
        return await self._all(Tower.IMAGE, rows, reading)

    async def _pixels(
        self, item: bytes | npt.NDArray[np.uint8], reading: Reading, place: str
    ) -> Pixels:
        try:
            if not isinstance(item, bytes):
                return check_pixels(item, self.spec.image)
            decode = partial(self._decode, item, exif=reading.exif)
            return await self._decoders.run(
                decode, priority=reading.priority, deadline=reading.deadline
            )
        except BadInput as exc:
            raise exc.within(place) from None

    async def _all(
        self, tower: Tower, rows: Sequence[Row], reading: Reading
    ) -> list[Answer[Outputs]]:
        with one_reason():
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(
                        self.states.get(
                            tower, row, priority=reading.priority, deadline=reading.deadline
                        )
                    )
                    for row in rows
                ]
        return [task.result() for task in tasks]


def read_zero_image(path: Path | None) -> dict[str, Array] | None:
    """By output: [D] or [T, H] float32."""
    if path is None:
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
