"""Prompts in; chunks of token ids, with a weight for each, out.

Brackets weigh words as in AUTOMATIC1111's web UI, whose rules a community pipeline of diffusers
follows:
https://github.com/AUTOMATIC1111/stable-diffusion-webui/blob/master/modules/prompt_parser.py
https://github.com/huggingface/diffusers/blob/main/examples/community/lpw_stable_diffusion.py
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from diptych.contract import TextSpec
from diptych.errors import BadInput
from diptych.preprocess.text import TextTokenizer

Ids: TypeAlias = npt.NDArray[np.int64]  # [chunks, L]
Mask: TypeAlias = npt.NDArray[np.bool_]  # [chunks, L], True for start, tokens and end
Weights: TypeAlias = npt.NDArray[np.float32]  # [chunks, L], 1 where nothing weighs

ROUND, SQUARE = 1.1, 1 / 1.1  # what a bare pair of brackets multiplies with
MOST_WEIGHT = 100.0
DEEPEST = 50  # brackets open at once

_LEAST_MEAN = 1e-4  # of states, in means of their absolute values

_PARTS = re.compile(r"\\[()\[\]\\]|[(\[\])]|:\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\)|\\|[^\\()\[\]:]+|:")


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """One text as one encoder reads it, start and end tokens left out."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]  # one an id
    chunks: int  # that hold any of them; 1 for none
    dropped: int = 0  # ids that went beyond the room there was
    dropped_text: str = ""  # what they say, cleaned as the tokenizer does


def weighed(prompt: str) -> list[tuple[str, float]]:
    """The stretches of a prompt, and what each weighs.

    A closing bracket that nothing opened is text; what is opened and not closed ends with the
    prompt. Brackets of the two kinds may cross.

    Raises:
        BadInput: at `text`; a weight beyond `MOST_WEIGHT`, or brackets `DEEPEST` deep.
    """
    texts: list[tuple[str, tuple[int, ...]]] = []
    factors: list[float] = []  # of each pair of brackets, in order of opening
    round_open: list[int] = []
    square_open: list[int] = []
    for part in _PARTS.finditer(prompt):
        found, number = part[0], part[1]
        if found in "([":
            (round_open if found == "(" else square_open).append(len(factors))
            factors.append(ROUND if found == "(" else SQUARE)
            if len(round_open) + len(square_open) > DEEPEST:
                raise BadInput.at("text", f"has more than {DEEPEST} brackets open at once")
        elif number is not None and round_open:
            factors[round_open.pop()] = float(number)
        elif found == ")" and round_open:
            round_open.pop()
        elif found == "]" and square_open:
            square_open.pop()
        else:
            plain = found[1:] if found[0] == "\\" else found  # alone it means nothing
            texts.append((plain, (*round_open, *square_open)))
    return list(_joined(texts, factors))


class PromptReader:
    """One encoder's reading of prompts. Safe to call from many threads."""

    def __init__(
        self, tokenizer: TextTokenizer, spec: TextSpec, *, pad_id: int, pad_text: str | None = None
    ) -> None:
        """`pad_text` in a prompt becomes `pad_id`."""
        self._tokenizer = tokenizer
        self._spec = spec
        self._pad_id = pad_id
        self._pad_text = pad_text
        self.room = spec.context_length - 1 - (spec.start_id is not None)  # ids a chunk

    def read(self, prompt: str, *, is_weighted: bool, room: int, refuse: bool) -> PromptTokens:
        """The first `room` ids of a prompt, and what was beyond.

        Raises:
            BadInput: at `text`; too many characters, not Unicode, badly weighed, or, where
                `refuse`, of more than `room` ids.
        """
        self._tokenizer.check(prompt)
        stretches = weighed(prompt) if is_weighted else [(prompt, 1.0)]
        parts = [
            (text, weight, is_pad)
            for stretch, weight in stretches
            for text, is_pad in self._cut(stretch)
        ]
        pieces = iter(self._tokenizer.pieces([text for text, _, is_pad in parts if not is_pad]))
        ids: list[int] = []
        weights: list[float] = []
        beyond: list[str] = []
        for text, weight, is_pad in parts:
            piece = None if is_pad else next(pieces)
            own = [self._pad_id] if piece is None else piece.ids
            fits = max(0, room - len(ids))
            if len(own) > fits:
                beyond.append(text if piece is None else piece.text[piece.starts[fits] :])
            ids += own
            weights += [weight] * len(own)
        dropped = max(0, len(ids) - room)
        if dropped and refuse:
            frame = self._spec.context_length - self.room
            raise BadInput.at(
                "text",
                f"is {len(ids) + frame:,} tokens long, start and end included; this model takes at "
                f"most {self._spec.context_length:,}; shorten it or allow chunks",
            )
        return PromptTokens(
            ids=tuple(ids[:room]),
            weights=tuple(weights[:room]),
            chunks=max(1, -(-len(ids[:room]) // self.room)),
            dropped=dropped,
            dropped_text=" ".join(beyond).strip(),
        )

    def chunks(self, tokens: PromptTokens, count: int) -> tuple[Ids, Mask, Weights]:
        """`count` chunks, each of a start, up to `room` ids, an end, and padding up to L."""
        spec, start = self._spec, int(self._spec.start_id is not None)
        ids = np.full((count, spec.context_length), self._pad_id, np.int64)
        mask = np.zeros(ids.shape, np.bool_)
        weights = np.ones(ids.shape, np.float32)
        if spec.start_id is not None:
            ids[:, 0] = spec.start_id
        for row in range(count):
            own = slice(row * self.room, (row + 1) * self.room)
            end = start + len(tokens.ids[own])
            ids[row, start:end] = tokens.ids[own]
            weights[row, start:end] = tokens.weights[own]
            ids[row, end] = spec.end_id
            mask[row, : end + 1] = True
        return ids, mask, weights

    def _cut(self, text: str) -> Iterator[tuple[str, bool]]:
        """What is read, and whether it is the padding's own name."""
        if self._pad_text is None:
            yield text, False
            return
        for number, part in enumerate(text.split(self._pad_text)):
            if number:
                yield self._pad_text, True
            if part:
                yield part, False


def weigh(states: npt.NDArray[np.float32], weights: npt.NDArray[np.float32]) -> None:
    """Multiply states [T, H] by weights [T], in place, and scale them to the mean they had.

    As lpw_stable_diffusion.py does; but where a mean is nothing beside the states, and so only
    what rounding left of it, they are not scaled.
    """
    if (weights == 1).all():
        return
    least = _LEAST_MEAN * float(np.abs(states).mean(dtype=np.float64))
    before = float(states.mean(dtype=np.float64))
    states *= weights[:, None]
    after = float(states.mean(dtype=np.float64))
    if min(abs(before), abs(after)) > least:
        states *= np.float32(before / after)


def _joined(
    texts: Sequence[tuple[str, tuple[int, ...]]], factors: Sequence[float]
) -> Iterator[tuple[str, float]]:
    """Neighbours of one weight as one text, so that its words are read together."""
    last: tuple[str, float] | None = None
    for text, inside in texts:
        weight = math.prod(factors[pair] for pair in inside)
        if not abs(weight) <= MOST_WEIGHT:
            raise BadInput.at("text", f"weighs words {weight:g} times; {MOST_WEIGHT:g} is the most")
        if last is not None and last[1] == weight:
            last = last[0] + text, weight
            continue
        if last is not None:
            yield last
        last = text, weight
    if last is not None:
        yield last
