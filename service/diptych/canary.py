"""Fixed inputs in, proof that an engine answers as the reference did out."""

from __future__ import annotations

import math
import time

import numpy as np

from diptych.contract import Matrix, ModelSpec, Tower, canary_pixels, canary_tokens
from diptych.engines.base import EMBEDS, PIXELS, Engine
from diptych.errors import EngineFailed
from diptych.scoring import unit
from diptych.text_calls import TextCalls

# By the precision of the graphs. An engine that multiplies in bf16 stays above; another graph, or
# a wrong kernel, does not.
MIN_COSINE = {"fp32": 0.999, "bf16": 0.998, "fp16": 0.998, "int8": 0.99}

_ROWS = 8  # that a call's own cost is told from its items' by
_MOST_ITEMS = 1000  # what a call may cost, where items seem to cost nothing


async def prove(engine: Engine, spec: ModelSpec, *, rows: int = 1) -> None:
    """Run both towers on the canary, `rows` times side by side, and compare every row.

    Raises:
        EngineFailed: a vector is not the one in the spec.
        EngineUnavailable: no answer.
    """
    least = MIN_COSINE[spec.precision]
    for tower in Tower:
        found = await _run(engine, spec, tower, rows)
        expected = np.array(getattr(spec.canary, tower), dtype=np.float32)
        worst = float((unit(found) @ expected).min())
        if worst < least:
            raise EngineFailed(
                f"{spec.name}: the {tower} tower's canary has cosine {worst:.5f} to the reference; "
                f"at least {least} is needed"
            )


async def call_items(engine: Engine, spec: ModelSpec) -> dict[Tower, float]:
    """What a call of each tower costs beside its items, in items: small on a CPU, large on a GPU.

    Measured on the canary, alone and several times side by side, the better of two runs each, for
    engines that are warm.

    Raises:
        EngineError: no answer, or an error for one.
    """
    alone_s, together_s = [await _times(engine, spec, rows) for rows in (1, _ROWS)]
    found = {}
    for tower, one_s in alone_s.items():
        item_s = max((together_s[tower] - one_s) / (_ROWS - 1), one_s / _MOST_ITEMS)
        found[tower] = max(one_s - item_s, 0.0) / item_s
    return found


async def _times(engine: Engine, spec: ModelSpec, rows: int) -> dict[Tower, float]:
    """Seconds that a batch of so many canaries takes."""
    taken: dict[Tower, float] = {}
    for tower in Tower:
        for _ in range(2):
            began = time.perf_counter()
            await _run(engine, spec, tower, rows)
            taken[tower] = min(time.perf_counter() - began, taken.get(tower, math.inf))
    return taken


async def _run(engine: Engine, spec: ModelSpec, tower: Tower, rows: int) -> Matrix:
    """So many canaries side by side, as callers' inputs are run."""
    if tower is Tower.IMAGE:
        pixels, name = np.stack([canary_pixels(spec.image)] * rows), EMBEDS[tower]
        return (await engine.run(tower, {PIXELS: pixels}, [name]))[name]
    call = TextCalls.on(engine, spec).call([canary_tokens(spec.text)] * rows)
    return call.embeds(await engine.run(tower, call.inputs, [call.output]))
