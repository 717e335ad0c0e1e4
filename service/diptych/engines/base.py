"""The one seam between our code and whatever runs the networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from diptych.contract import TEXTS_A_ROW, ModelSpec, Tower
from diptych.errors import EngineFailed

Array: TypeAlias = npt.NDArray[Any]
Finish: TypeAlias = Callable[[], list[Array]]  # waits for outputs, in the order asked for

PIXELS = "pixel_values"  # [B, S, S, 3] uint8
TOKENS = "input_ids"  # [B, L'] int64
MASK = "attention_mask"  # [B, L'] int64, where the tower takes one
EMBEDS = {Tower.IMAGE: "image_embeds", Tower.TEXT: "text_embeds"}  # [B, D] float32
PACKED = "packed_embeds"  # [B, TEXTS_A_ROW, D] float32: of every text of a row in turn


class Engine(Protocol):
    """Runs one tower of one model on one batch.

    Implemented by `engines.embedded.EmbeddedEngine` and `engines.triton.TritonEngine`, and by
    `testing.FaultyEngine` for tests.
    """

    @property
    def description(self) -> str:
        """What runs the towers and how, for a person."""
        ...

    @property
    def in_flight(self) -> int:
        """How many batches per tower keep it busy; more only wait inside it."""
        ...

    @property
    def call_tokens(self) -> int:
        """What one more call of the text tower costs, in tokens that it could have run instead."""
        ...

    @property
    def length_step(self) -> int:
        """Texts are padded to a multiple of it: 1 where a new length costs the engine nothing."""
        ...

    @property
    def canary_every_s(self) -> float:
        """How long it may be trusted after its canary was right: long where it cannot go away."""
        ...

    @property
    def canary_timeout_s(self) -> float | None:
        """What its canary may take before `is_well` is asked; None: as long as it takes."""
        ...

    async def is_well(self) -> bool:
        """Whether it is there, and well for all that is known without its canary."""
        ...

    async def run(
        self,
        tower: Tower,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Array]:
        """Run one batch: inputs [B, ...] by name to outputs [B, ...] by name.

        After `timeout_s` nobody wants the answer any more; an engine that can give up does.

        Raises:
            EngineUnavailable: no answer; the batch may be tried again.
            EngineFailed: an error for an answer, or one that `check_answer` refuses.
            DeadlinePassed: `timeout_s` passed first.
            Overloaded: the engine has a queue of its own, and it is full.
        """
        ...

    async def close(self) -> None:
        """Release what the engine holds. Nothing may run any more."""
        ...


def check_answer(spec: ModelSpec, tower: Tower, rows: int, answer: Mapping[str, Array]) -> None:
    """Refuse what cannot be right, so that it never becomes a vector.

    A zero row is refused because a caller who compares it reads "no match"; a row that is not
    finite, because every comparison with it is false.

    Raises:
        EngineFailed: an output has the wrong dtype, shape or row count, or a number in it is not
            finite, or an embedding has no length.
    """
    hidden = spec.image_hidden_size if tower is Tower.IMAGE else spec.text_hidden_size
    for name, values in answer.items():
        if values.dtype != np.float32:
            raise EngineFailed(f"{tower} tower: {name} is {values.dtype}, not float32")
        if (
            values.ndim < 2
            or (name == PACKED and values.shape[1:-1] != (TEXTS_A_ROW,))
            or values.shape[0] != rows
            or values.shape[-1]
            != (
                spec.embed_dim
                if name in (EMBEDS[tower], PACKED)
                else hidden  # all others are hidden states
            )
        ):
            raise EngineFailed(f"{tower} tower: {name} has shape {values.shape} for {rows} inputs")
        if not np.isfinite(values).all():
            raise EngineFailed(f"{tower} tower: {name} holds NaN or infinity")
        if name == EMBEDS[tower] and not (np.abs(values).max(axis=1) > 1e-12).all():
            raise EngineFailed(f"{tower} tower: {name} has a row of zeros")
