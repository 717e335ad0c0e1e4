"""Shards in, an endless shuffled stream out that can be taken up again at any sample.

Shuffled in blocks: so many samples are read in a row, shuffled among themselves, handed out. A
rolling buffer would mix no better, and would have to be saved sample by sample; here a place in
the stream is five numbers, and taking it up again costs the reading of one block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import TypeAlias

from diptych_export.data.pairs import Item, Shard
from diptych_export.errors import BadData


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in one reader's stream."""

    epoch: int = 0
    shard: int = 0  # of the epoch's order: where the block began to be read
    sample: int = 0  # in that shard
    block: int = 0  # of the epoch
    taken: int = 0  # samples of the block handed out

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Order:
    """Who reads what, and in which order."""

    seed: int
    block: int  # samples shuffled among themselves; they wait in memory, encoded
    reader: int = 0  # this one of ...
    readers: int = 1  # ... so many that share the data between them


_Place: TypeAlias = tuple[int, int]  # shard of the epoch's order, sample


def stream(shards: Sequence[Shard], order: Order, cursor: Cursor) -> Iterator[tuple[Item, Cursor]]:
    """Samples from `cursor` on, for ever; with each, the cursor behind it.

    In each epoch, each sample goes to one of the readers. They share out shards; or, if there
    are fewer shards than readers, samples, for which each reader has to read all shards.

    Raises:
        BadData: a file cannot be read, or an epoch holds nothing for this reader.
    """
    while True:
        empty = (cursor.shard, cursor.sample, cursor.block) == (0, 0, 0)
        number = cursor.block
        for place, block in _blocks(shards, order, cursor):
            empty = False
            Random(f"{order.seed}/{cursor.epoch}/{order.reader}/{number}").shuffle(block)
            for taken in range(cursor.taken, len(block)):
                yield block[taken], Cursor(cursor.epoch, *place, number, taken + 1)
            number += 1
            cursor = Cursor(cursor.epoch, block=number)
        if empty:
            raise BadData(
                f"nothing to read in {', '.join(s.place for s in shards[:3]) or 'no file'}"
            )
        cursor = Cursor(cursor.epoch + 1)


def _blocks(
    shards: Sequence[Shard], order: Order, cursor: Cursor
) -> Iterator[tuple[_Place, list[Item]]]:
    """Where each block began, and its samples."""
    begin, block = (cursor.shard, cursor.sample), list[Item]()
    for place, item in _samples(shards, order, cursor):
        if len(block) == order.block:
            yield begin, block
            begin, block = place, []
        block.append(item)
    if block:
        yield begin, block


def _samples(
    shards: Sequence[Shard], order: Order, cursor: Cursor
) -> Iterator[tuple[_Place, Item]]:
    """This reader's samples of one epoch from where `cursor`'s block began."""
    whole = len(shards) >= order.readers
    mine = Random(f"{order.seed}/{cursor.epoch}").sample(shards, len(shards))
    if whole:
        mine = mine[order.reader :: order.readers]
    for index in range(cursor.shard, len(mine)):
        start = cursor.sample if index == cursor.shard else 0
        for sample, item in enumerate(mine[index].read(start), start):
            if whole or sample % order.readers == order.reader:
                yield (index, sample), item
