"""Texts of any lengths in, full rows of token ids out: nearly nothing is padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from diptych.contract import TEXTS_A_ROW, TextSpec, Tokens
from diptych.preprocess.text import TokenBatch

Places: TypeAlias = npt.NDArray[Any]  # [N], integers

_MORE_ROWS = 3  # than the fewest that are tried, where those leave much padding


@dataclass(frozen=True, slots=True)
class Packed:
    """Texts side by side, as `packed_embeds` of a text tower answers for them."""

    ids: TokenBatch  # [R, W]
    present: TokenBatch  # [R, W]: 1 for tokens, 0 for padding
    rows: Places  # of every text: its row
    slots: Places  # and which one of the row's texts it is


def packed(batch: Sequence[Tokens], spec: TextSpec, step: int) -> Packed:
    """Lay texts side by side in rows of one width, a multiple of `step` or the context length.

    `batch` holds at least one text, none longer than the context.
    """
    texts = arranged([len(tokens) for tokens in batch], spec.context_length, step)
    width = texts.width
    ids = np.full((len(texts.rows), width), spec.pad_id, dtype=np.int64)
    present = np.zeros_like(ids)
    rows, slots = np.empty(len(batch), np.int64), np.empty(len(batch), np.int64)
    for row, members in enumerate(texts.rows):
        whole = np.concatenate([batch[member] for member in members])
        ids[row, : len(whole)] = whole
        present[row, : len(whole)] = 1
        rows[members], slots[members] = row, range(len(members))
    return Packed(ids, present, rows, slots)


@dataclass(frozen=True, slots=True)
class Arranged:
    width: int  # of every row, in tokens
    rows: list[list[int]]  # which texts lie in each


def arranged(lengths: Sequence[int], longest: int, step: int) -> Arranged:
    """The rows that come to the fewest tokens, padding included, of a few ways that are tried.

    No row is wider than `longest`, or holds more than `TEXTS_A_ROW` texts.
    """
    fewest = max(-(-sum(lengths) // longest), -(-len(lengths) // TEXTS_A_ROW))
    order = sorted(range(len(lengths)), key=lambda text: -lengths[text])
    best: Arranged | None = None
    count = fewest
    while best is None or count <= fewest + _MORE_ROWS:
        rows, widest = _dealt(order, lengths, count)
        width = min(-(-widest // step) * step, longest)
        if widest <= longest and (best is None or count * width < len(best.rows) * best.width):
            best = Arranged(width, rows)
        count += 1
    return best


def _dealt(order: Sequence[int], lengths: Sequence[int], count: int) -> tuple[list[list[int]], int]:
    """The longest first, each to the row that is emptiest; and the fullest row's tokens.

    R. L. Graham, Bounds on multiprocessing timing anomalies, 1969: never a third above the best.
    """
    rows: list[list[int]] = [[] for _ in range(count)]
    tokens = [0] * count
    for text in order:
        row = min(
            (place for place in range(count) if len(rows[place]) < TEXTS_A_ROW),
            key=tokens.__getitem__,
        )
        rows[row].append(text)
        tokens[row] += lengths[text]
    kept = [row for row in rows if row]
    return kept, max(tokens)
