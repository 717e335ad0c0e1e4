"""Batches and shards: cut in the same places, whatever was done before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from diptych.contract import Tower
from diptych.job.cutting import Batch, batches
from diptych.job.items import Item
from diptych.job.manifest import Todo

NOTHING = Todo(frozenset(), None)


def cut(inputs: int, todo: Todo, shard: int = 5, batch: int = 2) -> list[Batch]:
    items = [Item(str(number)) for number in range(todo.first * shard, inputs)]
    return list(batches(7, iter(items), todo, shard, batch))


@given(st.integers(0, 40), st.integers(1, 9), st.integers(1, 9))
def test_every_input_is_in_one_batch_and_no_batch_in_two_shards(
    inputs: int, shard: int, batch: int
) -> None:
    found = cut(inputs, NOTHING, shard, batch)
    numbers = [int(item.id) for one in found for item in one.items]
    assert numbers == list(range(inputs))
    assert all(int(item.id) // shard == one.shard for one in found for item in one.items)
    assert [one.ends_part for one in found] == [False] * (len(found) - 1) + [True]
    assert sum(one.ends_shard for one in found) == max(1, -(-inputs // shard))


@given(st.integers(0, 40), st.sets(st.integers(0, 8)), st.booleans())
def test_what_is_done_changes_no_batch_of_what_is_not(
    inputs: int, done: set[int], is_end_known: bool
) -> None:
    whole = cut(inputs, NOTHING)
    last = whole[-1].shard
    done = {shard for shard in done if shard <= last and (is_end_known or shard < last)}
    todo = Todo(frozenset(done), last if is_end_known else None)
    expected = [one for one in whole if one.shard not in done]
    if not todo.is_nothing:
        assert cut(inputs, todo) == expected
    else:
        assert not expected


def test_a_batch_of_large_contents_is_cut_short() -> None:
    large = [Item(str(n), {Tower.IMAGE: bytes(40 * 2**20)}) for n in range(4)]
    assert [len(one.items) for one in batches(0, iter(large), NOTHING, 100, 64)] == [2, 2]
