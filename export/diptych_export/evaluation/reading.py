"""Encoded pictures in, unit vectors out, batch by batch, as the gateway would make them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Protocol, TypeVar

from diptych.contract import ImageSpec, Matrix, Pixels
from diptych.errors import BadInput
from diptych.preprocess.images import decode_image
from diptych.settings import cores
from diptych_export.data.pairs import Reject
from diptych_export.errors import BadData
from diptych_export.inference import Inference

_BATCH = 64  # pictures decoded while as many are computed


class Picture(Protocol):
    """Something with an encoded picture."""

    @property
    def id(self) -> str: ...

    def encoded(self) -> bytes: ...


P = TypeVar("P", bound=Picture)


@dataclass(frozen=True, slots=True)
class Vectors(Generic[P]):
    """One batch: the pictures that could be read, their vectors, and the others."""

    pictures: list[P]
    matrix: Matrix  # [len(pictures), D], unit rows
    rejects: list[Reject]


async def embedded(model: Inference, items: Iterable[P | Reject]) -> AsyncIterator[Vectors[P]]:
    """Every item, in order. Reading and decoding run ahead by one batch."""
    stream = iter(items)
    with ThreadPoolExecutor(cores(), thread_name_prefix="decode") as pool:

        def read() -> list[tuple[P | Reject, Pixels | Reject]]:
            """The next items, with their pixels or with why they have none; empty at the end."""
            taken = list(islice(stream, _BATCH))
            seen = pool.map(lambda item: _seen(item, model.spec.image), taken)
            return list(zip(taken, seen, strict=True))

        ahead = asyncio.create_task(asyncio.to_thread(read))
        while batch := await ahead:
            ahead = asyncio.create_task(asyncio.to_thread(read))
            pictures, pixels, rejects = list[P](), list[Pixels](), list[Reject]()
            for item, seen in batch:
                if isinstance(seen, Reject):
                    rejects.append(seen)
                elif not isinstance(item, Reject):
                    pictures.append(item)
                    pixels.append(seen)
            yield Vectors(pictures, await model.pixels(pixels), rejects)


def _seen(item: Picture | Reject, spec: ImageSpec) -> Pixels | Reject:
    if isinstance(item, Reject):
        return item
    try:
        return decode_image(item.encoded(), spec)
    except (BadInput, BadData) as error:
        return Reject(item.id, str(error))
