"""Every sample once an epoch, in another order each time, and from any place on again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import pytest

from diptych_export.data.pairs import Item, Pair
from diptych_export.data.stream import Cursor, Order, stream
from diptych_export.errors import BadData


@dataclass(frozen=True)
class Numbers:
    """A shard of given numbers."""

    numbers: range

    @property
    def place(self) -> str:
        return f"{self.numbers}"

    def read(self, start: int) -> Iterator[Item]:
        for number in self.numbers[start:]:
            yield Pair(str(number), b"", str(number))


SHARDS = [Numbers(range(0, 7)), Numbers(range(7, 8)), Numbers(range(8, 20))]


def ids(order: Order, count: int, cursor: Cursor | None = None) -> list[int]:
    items = islice(stream(SHARDS, order, cursor or Cursor()), count)
    return [int(item.id) for item, _ in items]


@pytest.mark.parametrize("block", [1, 3, 8, 50])
def test_an_epoch_holds_every_sample_once(block: int) -> None:
    order = Order(seed=0, block=block)
    epochs = ids(order, 60)
    for epoch in (0, 20, 40):
        assert sorted(epochs[epoch : epoch + 20]) == list(range(20))
    assert epochs[:20] != epochs[20:40]
    assert ids(Order(seed=1, block=block), 20) != epochs[:20]


@pytest.mark.parametrize("readers", [2, 3, 5])
def test_readers_share_an_epoch_whether_shards_suffice_or_not(readers: int) -> None:
    everyones: list[int] = []
    for reader in range(readers):
        order = Order(seed=0, block=4, reader=reader, readers=readers)
        items = stream(SHARDS, order, Cursor())
        everyones += [int(item.id) for item, after in items_of_epoch(items, 0)]
    assert sorted(everyones) == list(range(20))


def items_of_epoch(
    items: Iterator[tuple[Item, Cursor]], epoch: int
) -> Iterator[tuple[Item, Cursor]]:
    for item, after in items:
        if after.epoch > epoch:
            return
        yield item, after


@pytest.mark.parametrize("block", [1, 5, 50])
@pytest.mark.parametrize("reader", [0, 3])
def test_a_stream_goes_on_at_any_place(block: int, reader: int) -> None:
    order = Order(seed=0, block=block, reader=reader, readers=4)
    whole = list(islice(stream(SHARDS, order, Cursor()), 30))
    for done, (_, after) in enumerate(whole[:20], start=1):
        assert list(islice(stream(SHARDS, order, after), 30 - done)) == whole[done:]


def test_a_place_survives_json() -> None:
    cursor = Cursor(1, 2, 3, 4, 5)
    assert Cursor(**cursor.as_dict()) == cursor


def test_no_samples_at_all_is_an_error_and_no_endless_loop() -> None:
    with pytest.raises(BadData, match="nothing to read"):
        next(stream([Numbers(range(0))], Order(seed=0, block=4), Cursor()))
