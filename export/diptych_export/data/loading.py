"""Shards in, decoded chunks out, read by worker processes, to be taken up again exactly."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from diptych.contract import ImageSpec
from diptych.errors import BadInput
from diptych_export.data.batches import Batch
from diptych_export.data.pairs import Pair, Reject, Shard
from diptych_export.data.stream import Cursor, Order, stream
from diptych_export.data.views import view
from diptych_export.errors import BadData
from diptych_export.world import World

State: TypeAlias = dict[str, Any]  # as JSON

_AHEAD = 2  # chunks that each worker has ready


class Chunks(Iterator[Batch], Protocol):
    """Training data, in chunks, without end."""

    def state(self) -> State:
        """Where the next chunk begins; a source made with it goes on there."""
        ...

    def rejects(self) -> list[Reject]:
        """What was skipped since this was last asked."""
        ...


@dataclass(frozen=True, slots=True)
class Reading:
    """What each reader does with its share of the data."""

    shards: Sequence[Shard]
    image: ImageSpec
    chunk: int  # pairs
    seed: int
    shuffled: int = 1000  # samples of one block: they wait in memory, encoded, in every worker
    least_view: float = 0.9  # of the picture's area in a random crop; 1: none


@dataclass(frozen=True, slots=True)
class _Draw:
    """One chunk on its way from a worker. Tensors travel by shared memory, arrays by pipe."""

    pixels: torch.Tensor
    texts: list[str]
    rejects: list[Reject]
    cursor: Cursor


class PairChunks:
    """Chunks of `reading.chunk` pairs for one process of `world`, from `workers` readers.

    Readers take turns, so the order is the same at every run. With no workers, the process reads
    by itself.
    """

    def __init__(
        self, reading: Reading, world: World, workers: int, state: State | None = None
    ) -> None:
        """Go on at `state`, or from the start.

        Raises:
            BadData: `state` is of other numbers of processes or workers: data would be lost.
        """
        self._readers = max(1, workers)
        shape = {"processes": world.size, "readers": self._readers, "chunk": reading.chunk}
        self._state: State = state or {
            **shape,
            "turn": 0,
            "cursors": [Cursor().as_dict()] * self._readers,
        }
        if any(self._state[name] != number for name, number in shape.items()):
            was = {name: self._state[name] for name in shape}
            raise BadData(f"the run was begun with {was}, and cannot go on with {shape}")
        self._rejects: list[Reject] = []
        self._draws = _draws(_Readers(reading, world, self._state), workers)

    def __iter__(self) -> PairChunks:
        return self

    def __next__(self) -> Batch:
        draw = next(self._draws)
        if isinstance(draw, BadData):
            raise draw
        turn, cursors = self._state["turn"], list(self._state["cursors"])
        cursors[turn] = draw.cursor.as_dict()
        self._state |= {"turn": (turn + 1) % self._readers, "cursors": cursors}
        self._rejects += draw.rejects
        return Batch(draw.pixels.numpy(), draw.texts)

    def state(self) -> State:
        return dict(self._state)

    def rejects(self) -> list[Reject]:
        news, self._rejects = self._rejects, []
        return news


class _Readers(IterableDataset[_Draw | BadData]):
    """In each worker, one reader's chunks."""

    def __init__(self, reading: Reading, world: World, state: State) -> None:
        self._reading, self._world, self._state = reading, world, dict(state)

    def __iter__(self) -> Iterator[_Draw | BadData]:
        """What stops a reader is handed over, not raised: a worker's traceback is no message."""
        worker = get_worker_info()
        readers = self._state["readers"]
        # The first worker is always asked first; it plays the reader whose turn it is.
        own = (self._state["turn"] + (worker.id if worker else 0)) % readers
        order = Order(
            seed=self._reading.seed,
            block=self._reading.shuffled,
            reader=self._world.rank * readers + own,
            readers=self._world.size * readers,
        )
        try:
            yield from _chunks(self._reading, order, Cursor(**self._state["cursors"][own]))
        except BadData as error:
            yield error


def _draws(readers: _Readers, workers: int) -> Iterator[_Draw | BadData]:
    if not workers:
        return iter(readers)
    return iter(
        DataLoader(
            readers,
            batch_size=None,
            num_workers=workers,
            collate_fn=_unchanged,
            prefetch_factor=_AHEAD,
            multiprocessing_context=_processes(),
            generator=torch.Generator(),  # else it draws from the one that dropout draws from
        )
    )


def _processes() -> Any:
    """Workers are forks of a fresh process: the threads of this one would not survive in them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # read once, not by every worker
    return context


def _unchanged(draw: Any) -> Any:
    return draw


def _chunks(reading: Reading, order: Order, cursor: Cursor) -> Iterator[_Draw]:
    pixels, texts, rejects = [], list[str](), list[Reject]()
    skipped = 0  # one after another
    for item, after in stream(reading.shards, order, cursor):
        seen = item if isinstance(item, Reject) else _seen(item, reading, after.epoch)
        if isinstance(seen, Reject):
            rejects.append(seen)
            skipped += 1
            _check_patience(skipped, seen)
            continue
        skipped = 0
        assert isinstance(item, Pair)
        pixels.append(seen)
        texts.append(item.text)
        if len(texts) == reading.chunk:
            yield _Draw(torch.from_numpy(np.stack(pixels)), texts, rejects, after)
            pixels, texts, rejects = [], [], []


_PATIENCE = 10_000  # samples skipped one after another, before the data is called useless


def _check_patience(skipped: int, last: Reject) -> None:
    if skipped >= _PATIENCE:
        raise BadData(
            f"{skipped:,} samples in a row were skipped, at last {last.id}: {last.reason}"
        )


def _seen(pair: Pair, reading: Reading, epoch: int) -> np.ndarray[Any, Any] | Reject:
    """The pair's pixels in this epoch, or why it has none."""
    rng = Random(f"{reading.seed}/{epoch}/{pair.id}")
    try:
        return view(pair.encoded(), reading.image, reading.least_view, rng)
    except (BadInput, BadData) as error:
        return Reject(pair.id, str(error))
