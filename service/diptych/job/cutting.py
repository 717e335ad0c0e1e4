"""A part's inputs in, batches out, cut always in the same places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from diptych.job.items import Item
from diptych.job.manifest import Todo

_MAX_BATCH_BYTES = 64 * 2**20  # of contents that wait in memory


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs of one shard that go to the engine together."""

    part: int
    shard: int
    items: list[Item]
    ends_shard: bool
    ends_part: bool


def batches(
    part: int, items: Iterator[Item], todo: Todo, shard_size: int, batch_size: int
) -> Iterator[Batch]:
    """Cut a part's inputs, from the first shard to do on, into shards and those into batches.

    Shards that are done are read over. A part without inputs is one shard without inputs.
    """
    shard, left = todo.first, shard_size
    upcoming = next(items, None)
    while True:
        found: list[Item] = []
        size = 0
        while upcoming is not None and len(found) < min(batch_size, left):
            found.append(upcoming)
            size += _waiting_bytes(upcoming)
            upcoming = next(items, None)
            if size >= _MAX_BATCH_BYTES:
                break
        left -= len(found)
        is_end = upcoming is None
        ends_shard = is_end or not left
        if todo.wants(shard):
            yield Batch(part, shard, found, ends_shard, is_end)
        if ends_shard:
            if is_end or not todo.wants_after(shard):
                return
            shard, left = shard + 1, shard_size


def _waiting_bytes(item: Item) -> int:
    return sum(len(c) for c in item.contents.values() if isinstance(c, bytes | str))
