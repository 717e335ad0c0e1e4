"""Scenes as training data, drawn on the way: batches in chunks, and lessons in groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from diptych_export.data import shapes
from diptych_export.data.batches import Batch
from diptych_export.data.drawing import draw
from diptych_export.data.loading import State
from diptych_export.data.pairs import Reject
from diptych_export.data.scenes import SIDE_PX, TRAINING
from diptych_export.errors import BadRun
from diptych_export.world import World

MOST = 1024  # scenes a batch; beyond, scenes that no other caption fits are hard to come by


class SceneChunks:
    """One process's chunks of endless batches; chunk n is the same bytes wherever one begins.

    Within a batch every caption fits one scene only. The first `alone` batches show one thing
    each, and are no larger than there are pairs. Without them two things are a puzzle of unknown
    pieces: the loss stays on a plateau for thousands of steps.
    """

    def __init__(
        self,
        size: int,
        seed: int,
        *,
        side_px: int = SIDE_PX,
        alone: int,
        chunks: int = 1,
        world: World | None = None,
        state: State | None = None,
    ) -> None:
        """Batches of `size` scenes over all processes, in `chunks` for each of them.

        Drawn `side_px` a side, which is what the image tower takes.

        Raises:
            BadRun: no such batches can be drawn.
        """
        self._size, self._seed, self._alone, self._side_px = size, seed, alone, side_px
        self._chunks, self._world = chunks, world or World()
        self._drawn: int = state["drawn"] if state else 0
        parts = chunks * self._world.size
        if size > MOST:
            raise BadRun(f"--batch {size}: scenes that differ are drawn up to {MOST} at a time")
        if alone and min(size, len(TRAINING)) % parts:
            raise BadRun(
                f"{parts} chunks do not divide batches of {min(size, len(TRAINING))} scenes"
            )

    def __iter__(self) -> SceneChunks:
        return self

    def __next__(self) -> Batch:
        step, chunk = divmod(self._drawn, self._chunks)
        found = shapes.examples(self._size, self._seed, step, is_alone=step < self._alone)
        part = len(found) // (self._chunks * self._world.size)
        first = part * (self._world.rank * self._chunks + chunk)
        own = found[first : first + part]
        self._drawn += 1
        return _drawn(own, self._side_px)

    def state(self) -> State:
        return {"drawn": self._drawn}

    def rejects(self) -> list[Reject]:
        return []


class Lessons:
    """Endless batches in groups, for one process; number n is the same bytes wherever one begins.

    The first `alone` show one thing a scene.
    """

    def __init__(self, seed: int, *, side_px: int, alone: int, state: State | None = None) -> None:
        self._seed, self._side_px, self._alone = seed, side_px, alone
        self._step: int = state["drawn"] if state else 0

    def __iter__(self) -> Lessons:
        return self

    def __next__(self) -> Batch:
        is_alone = self._step < self._alone
        groups = shapes.lesson(self._seed, self._step, is_alone=is_alone)
        self._step += 1
        return _drawn([e for group in groups for e in group], self._side_px, map(len, groups))

    def state(self) -> State:
        return {"drawn": self._step}

    def rejects(self) -> list[Reject]:
        return []


def _drawn(examples: Sequence[shapes.Example], side_px: int, groups: Iterable[int] = ()) -> Batch:
    pixels = np.stack([draw(scene, side_px) for scene, _ in examples])
    return Batch(pixels, [text for _, text in examples], tuple(groups))
