"""Texts in, calls of the text tower out, so that padding costs as little as it can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from diptych.contract import Matrix, ModelSpec, TextSpec, Tokens, Tower
from diptych.engines.base import EMBEDS, MASK, PACKED, TOKENS, Array, Engine
from diptych.errors import EngineFailed
from diptych.preprocess.packing import Places, packed
from diptych.preprocess.text import BUCKET, by_length, pad_tokens

WORTH = 64  # times what a call itself costs: larger calls are hardly cheaper, only later


@dataclass(frozen=True, slots=True)
class TextCall:
    """What to ask of an engine for some texts, and where in its answer they are."""

    inputs: dict[str, Array]
    output: str
    places: tuple[Places, ...]  # of the texts in the output

    def embeds(self, answer: Mapping[str, Array]) -> Matrix:
        """One row [D] a text, in the texts' order, not of unit length.

        Raises:
            EngineFailed: one of them has no length.
        """
        found: Matrix = answer[self.output][self.places]
        if not (np.abs(found).max(axis=1) > 1e-12).all():
            raise EngineFailed(f"text tower: {self.output} has a text of zeros")
        return found


class TextCalls:
    """How texts of one model become calls of its text tower.

    Where the graph can tell texts in one row apart, they are laid side by side. Elsewhere, texts of
    like length go together, each padded to the longest of its call; or all to the whole context,
    where the model learned it so.
    """

    def __init__(self, spec: ModelSpec, *, call_tokens: int = 0, length_step: int = BUCKET) -> None:
        """`call_tokens` and `length_step` are those of the engine."""
        self._text = spec.text
        self._packs = packs(spec)
        self._call_tokens = call_tokens
        self._step = length_step

    @classmethod
    def on(cls, engine: Engine, spec: ModelSpec) -> Self:
        """As they are cheapest for this engine."""
        return cls(spec, call_tokens=engine.call_tokens, length_step=engine.length_step)

    def cut(self, lengths: Sequence[int]) -> list[list[int]]:
        """Which texts to run together, as indexes into `lengths`, of which there is at least one.

        The first texts go first, where they need not wait for company of their length.
        """
        everything = list(range(len(lengths)))
        if self._text.padding == "max_length":
            return [everything]
        if not self._packs:
            return by_length(lengths, self._call_tokens, self._step)
        most = max(WORTH * self._call_tokens, self._text.context_length)
        cuts, tokens = [0], 0
        for place, length in enumerate(lengths):
            if tokens and tokens + length > most:
                cuts.append(place)
                tokens = 0
            tokens += length
        ends = [*cuts[1:], len(lengths)]
        return [everything[begin:end] for begin, end in zip(cuts, ends, strict=True)]

    def call(self, texts: Sequence[Tokens]) -> TextCall:
        """One call for all of `texts`, of which there is at least one."""
        if not self._packs:
            ids, mask = pad_tokens(texts, self._text, self._step)
            places: tuple[Places, ...] = (np.arange(len(texts)),)
            return TextCall(inputs(self._text, ids, mask), EMBEDS[Tower.TEXT], places)
        rows = packed(texts, self._text, self._step)
        return TextCall(inputs(self._text, rows.ids, rows.present), PACKED, (rows.rows, rows.slots))


def packs(spec: ModelSpec) -> bool:
    """Whether the text tower takes several texts in a row."""
    return spec.text.padding == "longest" and PACKED in spec.outputs(Tower.TEXT)


def inputs(spec: TextSpec, ids: Array, mask: Array) -> dict[str, Array]:
    """What the text tower takes, by name."""
    return {TOKENS: ids, MASK: mask} if spec.attention_mask else {TOKENS: ids}
