"""How many inputs a second of a case the machine could answer with no server at all."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.traffic import Case, Kind


def ceiling(case: Case, alone: dict[str, Any]) -> float | None:
    """Inputs per second: 1 / (reading / cores + engine at its best batch), DESIGN §5.

    Texts count at their own length. None where nothing need be computed.
    """
    if case.repeats:
        return None
    return 1 / lonely_s(case, alone, best=True)


def lonely_s(case: Case, alone: dict[str, Any], *, best: bool = False) -> float:
    """Seconds for one input, the mean of a case's kinds: read, and run alone or in a `best` batch.

    Reading is shared out over the cores only in a `best` batch.
    """
    cores: int = alone["cores"] if best else 1
    each: list[float] = [
        alone[_READING[kind]] / cores if kind in _READING else 0.0 for kind in case.kinds
    ]
    return sum(each + [_engine_s(kind, alone, best) for kind in case.kinds]) / len(case.kinds)


_READING = {"image": "decode_image", "large": "decode_large", "text": "tokenize"}


def _engine_s(kind: Kind, alone: dict[str, Any], best: bool) -> float:
    def of(batches: dict[str, float]) -> float:
        return min(batches.values()) if best else batches["1"]

    if kind != "text":
        return of(alone["image"])
    lengths: dict[str, float] = alone["lengths"]
    measured = sorted((int(length), of(batches)) for length, batches in alone["text"].items())
    at, seconds = ([pair[side] for pair in measured] for side in (0, 1))
    own = np.interp([int(length) for length in lengths], at, seconds)
    return float(np.dot(own, list(lengths.values())))
