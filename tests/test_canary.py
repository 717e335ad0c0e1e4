from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diptych.canary import call_items
from diptych.contract import Tower
from diptych.engines.base import PIXELS, TOKENS, Array
from tests.serving import SHAPES

END = SHAPES.spec.text.end_id


class Timed:
    """Takes so many seconds for a call and for each item in it."""

    call_tokens = length_step = 1

    def __init__(self, call_s: float, item_s: float) -> None:
        self._call_s, self._item_s = call_s, item_s

    async def run(
        self, tower: Tower, inputs: Mapping[str, Array], outputs: Sequence[str], **_: Any
    ) -> dict[str, Array]:
        items = len(inputs[PIXELS]) if tower is Tower.IMAGE else int((inputs[TOKENS] == END).sum())
        await asyncio.sleep(self._call_s + self._item_s * items)
        shape = (items, SHAPES.spec.embed_dim) if tower is Tower.IMAGE else (items, 16, 1)
        return dict.fromkeys(outputs, np.ones(shape, np.float32))


async def costs(call_s: float, item_s: float) -> float:
    engine: Any = Timed(call_s, item_s)
    return (await call_items(engine, SHAPES.spec))[Tower.TEXT]


async def test_what_a_call_costs_is_told_in_items() -> None:
    assert 2 < await costs(call_s=0.04, item_s=0.01) < 8
    assert await costs(call_s=0.0, item_s=0.02) < 1


async def test_where_items_seem_free_a_call_costs_many() -> None:
    assert await costs(call_s=0.02, item_s=0.0) > 50
